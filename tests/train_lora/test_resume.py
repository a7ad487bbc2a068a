"""A training that goes on from a checkpoint ends bit for bit as if never stopped; broken numbers stop it whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core.checkpoint.state import Checkpoint
from duolora_core.errors import TrainingError
from duolora_core.train_lora import attach_loras, train_lora
from lora_trainings import CONFIG, LAYERS, Loras, example, grown, new, trained_loras
from tiny import TinyDenoiser, hooks

LONG = replace(CONFIG, steps=4, warmup=2, schedule="cosine", strengths=(0.5, 1.5), weight_decay=0.01)
EXAMPLES, CLASSES = [example(1), example(2, (8, 16)), example(3)], [example(5)]


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_going_on_is_bit_for_bit_never_having_stopped(unet: UNet, stop: int) -> None:
    whole = trained_loras(TinyDenoiser(unet), grown(), LONG, EXAMPLES, CLASSES)
    start = [Checkpoint(0, {}), *whole.checkpoints][stop]
    if stop == 0:
        start = Checkpoint(0, {f"{s}.{n}": t for s, lora in grown().items() for n, t in lora.tensors().items()})
    other = grown(seed=77)  # all that counts must come from the checkpoint
    again = trained_loras(TinyDenoiser(unet), other, LONG, EXAMPLES, CLASSES, resume=start)
    assert [report.step for report in again.reports] == list(range(stop + 1, 5))
    assert torch.equal(again.numbers, whole.numbers)
    assert [report.losses for report in again.reports] == [report.losses for report in whole.reports[stop:]]


def test_a_checkpoint_is_a_copy(unet: UNet) -> None:
    outcome = trained_loras(TinyDenoiser(unet), grown(), replace(LONG, steps=2))
    first, second = (checkpoint.tensors for checkpoint in outcome.checkpoints)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert all(not tensor.requires_grad and tensor.device.type == "cpu" for tensor in first.values())


FIRST = f"content.{LAYERS[0]}.up"
SPOILED: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "missing": ({FIRST: None}, "missing"),
    "shape": ({FIRST: torch.zeros(2, 2)}, r"\(2, 2\)"),
    "moment": ({f"{FIRST}.exp_avg": None}, "missing"),
    "dtype": ({FIRST: torch.zeros(1, dtype=torch.int64)}, "int64"),
    "another layer": ({"content.elsewhere.up": torch.zeros(2, 2)}, r"content\.elsewhere\.up .* nothing is needed"),
    "negative square": ({f"{FIRST}.exp_avg_sq": -torch.ones(16, 3)}, "no training has"),
}


@pytest.mark.parametrize("changes", SPOILED)
def test_another_trainings_checkpoint_is_refused_before_anything_changes(unet: UNet, changes: str) -> None:
    checkpoint = trained_loras(TinyDenoiser(unet), grown(), replace(LONG, steps=2)).checkpoints[0]
    spoiled, what = SPOILED[changes]
    tensors = {name: tensor for name, tensor in {**checkpoint.tensors, **spoiled}.items() if tensor is not None}
    loras = grown()
    with pytest.raises(TrainingError, match=what):
        trained_loras(TinyDenoiser(unet), loras, LONG, resume=Checkpoint(1, tensors))
    assert torch.equal(numbers(loras), numbers(grown()))


def test_a_damaged_or_longer_training_is_refused(unet: UNet) -> None:
    checkpoint = trained_loras(TinyDenoiser(unet), grown(), replace(LONG, steps=2)).checkpoints[0]
    with pytest.raises(TrainingError, match="step 5 of 4"):
        trained_loras(TinyDenoiser(unet), grown(), LONG, resume=Checkpoint(5, checkpoint.tensors))
    broken = checkpoint.tensors[FIRST].clone().fill_(math.nan)
    with pytest.raises(TrainingError, match="no training has"):
        trained_loras(TinyDenoiser(unet), grown(), LONG, resume=Checkpoint(1, {**checkpoint.tensors, FIRST: broken}))


def numbers(loras: Loras) -> Tensor:
    return torch.cat([tensor.flatten() for lora in loras.values() for _, tensor in lora.trained()])


def not_a_number(x0: Tensor) -> Tensor:
    return x0 * math.nan


def broken_gradient(x0: Tensor) -> Tensor:
    """The value is right, but the derivative of the root at 0 is infinite."""
    return x0 + (x0 * 0).sqrt()


@pytest.mark.parametrize("poison", [not_a_number, broken_gradient])
@pytest.mark.parametrize("good_steps", [0, 2])
def test_broken_numbers_stop_with_the_lora_of_the_step_before(
    unet: UNet, poison: Callable[[Tensor], Tensor], good_steps: int
) -> None:
    calls = iter(range(10_000))
    denoiser = TinyDenoiser(unet, spoil=lambda x0: x0 if next(calls) < good_steps else poison(x0))
    loras = new()
    start = loras["content"].fold()
    with attach_loras(denoiser.modules, loras) as attached:
        steps = train_lora(denoiser, attached, [example(1)], CONFIG)
        for _ in range(good_steps):
            next(steps)
        with pytest.raises(TrainingError, match=f"step {good_steps + 1}: .* not a finite number"):
            next(steps)
    expected = start
    if good_steps:
        expected = trained_loras(TinyDenoiser(unet), new(), replace(CONFIG, steps=good_steps)).loras["content"].fold()
    reached = loras["content"].fold()
    assert all(torch.equal(each.up, expected.layers[name].up) for name, each in reached.layers.items())
    assert hooks(unet) == 0
