"""A loss scale that steps down: an overflowing step is repeated with the same noise, and the result does not change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from checkpoint.test_resume_merge import through_a_file
from duolora_core import attach, open_gates, train
from duolora_core.baselines.zip_lora import ZipLoraConfig, attach_zip, zip_lora
from duolora_core.errors import NotFiniteError
from duolora_core.model.loss_scale import DIVISORS, LossScale
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from duolora_core.train_lora import attach_loras, unzip, unzip_loras
from lora_trainings import CONFIG, grown, trained_loras
from overflowing import Overflowing
from tiny import TinyDenoiser, picture
from train_lora.test_checkpoint_file import through_a_file as loras_through_a_file
from train_lora.test_unzip import CONFIG as UNZIP
from train_lora.test_unzip import FORM, LATENT, PROMPTS
from training import BOTH_WEIGHTED, ROLES, small_pair
from worlds import World

Outcome = tuple[Tensor, list[dict[str, float]]]
Training = Callable[[UNet, World, Overflowing, MemoryPlanner], Outcome]

MERGE = replace(BOTH_WEIGHTED, steps=4, micro_batch=8)  # one backward pass a step
ONCE = "a gradient overflowed; the step was repeated with 1/64 of the loss scale"


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def large() -> MemoryPlanner:
    return MemoryPlanner([MemoryPlan(8, "none")])


@pytest.mark.parametrize(("limit", "divisor", "calls"), [(1e9, 1, 1), (100.0, 64, 2), (2.0, 4096, 3), (0.01, 4096, 3)])
def test_the_scale_goes_down_until_the_gradient_is_finite(limit: float, divisor: int, calls: int) -> None:
    """x² at 3 has the gradient 6, whatever it is scaled by on the way; and below the least scale there is no more."""
    x, scales, notes = torch.tensor(3.0, requires_grad=True), list[float](), list[str]()
    scale = LossScale(notes)

    def overflow(gradient: Tensor) -> Tensor:
        return gradient if float(gradient) <= limit else gradient * math.inf

    def accumulate(factor: float) -> dict[str, float]:
        scales.append(factor)
        loss = x.square()
        loss.register_hook(overflow)
        (loss * factor).backward()
        return {"total": float(loss.detach())}

    assert scale.gradient([x], 1024, accumulate) == {"total": 9.0}
    assert scales == [1024 / each for each in DIVISORS[:calls]] and scale.divisor == divisor
    assert len(notes) == calls - 1
    assert x.grad is not None
    assert float(x.grad) == 6.0 if limit > 0.25 else not bool(x.grad.isfinite())
    scale.gradient([x], 1024, accumulate)
    assert scales[-1] == 1024 / divisor and len(scales) == calls + 1  # for good


def test_a_loss_that_is_not_finite_is_not_repeated() -> None:
    x, scale = torch.tensor(math.inf, requires_grad=True), LossScale([])

    def accumulate(factor: float) -> dict[str, float]:
        (x * factor).backward()
        return {"total": math.inf}

    scale.gradient([x], 1024, accumulate)
    assert scale.divisor == 1


def merged(unet: UNet, built: World, spoil: Overflowing, planner: MemoryPlanner) -> Outcome:
    denoiser = TinyDenoiser(unet, spoil=spoil)
    with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
        reports = list(train(denoiser, gated, [picture(1)], [picture(2)], ROLES, MERGE, planner))
    return gated.gates.values, [dict(report.losses) for report in reports]


def zipped(unet: UNet, built: World, spoil: Overflowing, planner: MemoryPlanner) -> Outcome:
    denoiser, config = TinyDenoiser(unet, spoil=spoil), ZipLoraConfig(steps=4, micro_batch=8)
    with attach_zip(denoiser.modules, built.pair) as zipped:
        reports = list(zip_lora(denoiser, zipped, [picture(1)], [picture(2)], config, planner))
    return zipped.gates.values, [dict(report.losses) for report in reports]


def dreamt(unet: UNet, built: World, spoil: Overflowing, planner: MemoryPlanner) -> Outcome:
    outcome = trained_loras(TinyDenoiser(unet, spoil=spoil), grown(), replace(CONFIG, steps=4), planner=planner)
    return outcome.numbers, [dict(report.losses) for report in outcome.reports]


def unzipped(unet: UNet, built: World, spoil: Overflowing, planner: MemoryPlanner) -> Outcome:
    denoiser, loras = TinyDenoiser(unet, spoil=spoil), unzip_loras(TinyDenoiser(unet).layout, FORM, UNZIP)
    with attach_loras(denoiser.modules, loras) as live:
        reports = list(unzip(denoiser, live, [LATENT], PROMPTS, UNZIP, planner=planner))
    tensors = [tensor.flatten() for lora in loras.values() for tensor in lora.tensors().values()]
    return torch.cat(tensors), [dict(report.losses) for report in reports]


@pytest.mark.parametrize("training", [merged, zipped, dreamt, unzipped])
def test_a_training_that_overflows_ends_as_one_that_does_not(unet: UNet, built: World, training: Training) -> None:
    """Bit for bit, because the scale is a power of two and the repeated step has the same noise; UnZipLoRA's first
    pass is the one that columns are scored by."""
    free, tight = Overflowing([math.inf]), Overflowing([math.inf])
    values, losses = training(unet, built, free, large())
    tight.limits = [max(free.largest) / 8]  # a 64th of the largest is below
    planner = large()
    again, told = training(unet, built, tight, planner)
    assert torch.equal(again, values) and told == losses
    assert planner.notes == [ONCE]
    assert len(tight.largest) == len(free.largest) + 1


def test_a_merge_goes_on_with_the_lowered_scale(unet: UNet, built: World, tmp_path: Path) -> None:
    """Through a file: what had overflowed is not tried again, also where it would not overflow now."""
    spoil, planner = Overflowing([0.0, math.inf]), large()
    denoiser = TinyDenoiser(unet, spoil=spoil)
    with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
        reports = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, MERGE, planner)
        next(reports)
        state = next(reports).checkpoint()
        rest = [next(reports) for _ in range(2)]
    whole, scaled = gated.gates.values, spoil.largest[-2:]
    assert state.scale_divisor == 64
    spoil, planner = Overflowing([math.inf]), large()
    denoiser = TinyDenoiser(unet, spoil=spoil)
    with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
        state = through_a_file(state, tmp_path)
        again = list(train(denoiser, gated, [picture(1)], [picture(2)], ROLES, MERGE, planner, state))
    assert torch.equal(gated.gates.values, whole.cpu()) and spoil.largest == scaled
    assert [report.losses for report in again] == [report.losses for report in rest]
    assert planner.notes == ["the loss scale stays at 1/64, since a gradient had overflowed before the stop"]


def test_a_lora_goes_on_with_the_lowered_scale(unet: UNet, tmp_path: Path) -> None:
    spoil, config = Overflowing([0.0, math.inf]), replace(CONFIG, steps=4)
    whole = trained_loras(TinyDenoiser(unet, spoil=spoil), grown(), config, planner=large())
    assert [checkpoint.scale_divisor for checkpoint in whole.checkpoints] == [64] * 4
    resume, again = loras_through_a_file(whole.checkpoints[1], grown(), tmp_path), Overflowing([math.inf])
    rest = trained_loras(TinyDenoiser(unet, spoil=again), grown(), config, planner=large(), resume=resume)
    assert torch.equal(rest.numbers, whole.numbers) and again.largest == spoil.largest[-2:]


@pytest.mark.parametrize("training", [merged, zipped, dreamt, unzipped])
def test_what_overflows_at_every_scale_ends_the_training(unet: UNet, built: World, training: Training) -> None:
    spoil, planner = Overflowing([0.0]), large()
    with pytest.raises(NotFiniteError, match=r"step 1: the gradient .* not a finite number .* No step had succeeded"):
        training(unet, built, spoil, planner)
    assert len(spoil.largest) == 3 and len(planner.notes) == 2
