"""The other implementations of a step that the speed benchmark times are the same mathematics as ours."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithm_3 import Reference, wide
from benchmarks.ldm_unet import TINY, UNet
from benchmarks.random_sdxl import UNetDenoiser, random_pair, random_unet
from benchmarks.speed.authors import RankMaskedLoras, authors_losses
from benchmarks.speed.contestants import CONTESTANTS, Task
from benchmarks.speed.dense import DenseLoras, Passes, attached
from benchmarks.speed.wall import separate
from benchmarks.speed.ziplora import ColumnMaskedLoras, ziplora_losses
from duolora_core import Gates
from duolora_core.baselines.zip_lora import ZipLoraConfig, attach_zip, zip_lora
from duolora_core.model.denoiser import Prediction
from duolora_core.model.memory.estimate import CHECKPOINTED_LEVELS
from gradients import gradients
from masks import random_masks
from tiny import ATTENTION, TinyDenoiser, hooks, pick, picture
from training import BOTH_WEIGHTED, ROLES, trained
from worlds import World, random_gates, relative, world

CPU, WIDE = torch.device("cpu"), torch.float64
CONTENT, STYLE = picture(1), picture(2)


@pytest.fixture(scope="module")
def built() -> World:
    return world(pick(ATTENTION)[::3], ranks=(3, 2), seed=2)


def doubled(gates: Gates) -> Gates:
    return Gates(gates.values.double(), gates.slots)


def passes_of(denoiser: TinyDenoiser, loras: DenseLoras, sigma: float) -> Passes:
    """The passes with the noise that a training on the same denoiser has just drawn."""
    seen = next(seen.x for seen in denoiser.seen if seen.condition is CONTENT.own)
    noise = (seen.double() - CONTENT.latent) / sigma
    return Passes(denoiser, loras, CONTENT, STYLE, noise, torch.tensor(sigma, dtype=WIDE))


def gradient(loras: DenseLoras) -> Tensor:
    return torch.cat([mask.grad if mask.grad is not None else torch.zeros_like(mask) for mask in loras.parameters])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_authors_step_is_ours_and_algorithm_3(unet: UNet, built: World, prediction: Prediction) -> None:
    gates, denoiser = random_gates(built.pair), TinyDenoiser(unet, prediction)
    ours = trained(denoiser, built, BOTH_WEIGHTED, gates, [CONTENT], [STYLE])
    sigma = ours.reports[0].sigma
    loras = RankMaskedLoras(built.pair, doubled(gates), CPU, WIDE)
    passes = passes_of(denoiser, loras, sigma)
    with attached(denoiser.modules, loras):
        losses = authors_losses(ROLES, BOTH_WEIGHTED)(passes, CONTENT, STYLE)
    total = torch.stack(list(losses.values())).sum()
    total.backward()

    reference, leaf = Reference(denoiser, built, CONTENT, STYLE, BOTH_WEIGHTED, sigma), wide(gates)
    reference.noise_s, reference.z_s = passes.noise, reference.alpha.sqrt() * passes.x[1]  # without float32's rounding
    expected = reference.total(leaf)
    expected.backward()

    assert leaf.values.grad is not None
    assert relative(total.detach(), expected.detach()) < 1e-10
    assert relative(gradient(loras), leaf.values.grad) < 1e-9
    assert ours.reports[0].losses["total"] == pytest.approx(float(total.detach()), rel=1e-5)  # our loop keeps float32
    assert relative(ours.gradients[0], gradient(loras)) < 1e-4
    assert hooks(unet) == 0


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ziploras_step_is_ours(unet: UNet, built: World, prediction: Prediction) -> None:
    denoiser, config = TinyDenoiser(unet, prediction), ZipLoraConfig(steps=1, similarity_weight=0.3)
    with attach_zip(denoiser.modules, built.pair, "input") as zipped, gradients() as seen:
        zipped.gates.values = random_masks(zipped.gates)
        start = zipped.gates.copy()
        [report] = list(zip_lora(denoiser, zipped, [CONTENT], [STYLE], config))

    loras = ColumnMaskedLoras(built.pair, doubled(start), CPU, WIDE)
    with attached(denoiser.modules, loras):
        losses = ziplora_losses(config.similarity_weight)(passes_of(denoiser, loras, report.sigma), CONTENT, STYLE)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert report.losses["total"] == pytest.approx(float(total.detach()), rel=1e-5)
    assert relative(seen[0], gradient(loras)) < 1e-4


@pytest.fixture(scope="module")
def task() -> Task:
    denoiser = UNetDenoiser(random_unet(TINY, torch.float32))
    return Task(denoiser, random_pair(denoiser.layout, rank=2), pixels=64)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_checkpointing_changes_no_step(task: Task, name: str) -> None:
    """Also not of the networks that ran in between: what is computed again must be the merge."""
    runs: list[list[float]] = []
    for checkpointing in CHECKPOINTED_LEVELS:
        with CONTESTANTS[name](replace(task, checkpointing=checkpointing)) as step:
            runs.append([step() for _ in range(3)])
    assert all(math.isfinite(total) for total in runs[0]) and len(set(runs[0])) == 3
    assert all(run == runs[0] for run in runs)
    assert hooks(task.denoiser.unet) == 0


def test_contestants_take_turns_on_modules_of_their_own(task: Task) -> None:
    apart = [separate(task) for _ in CONTESTANTS]
    with ExitStack() as stack:
        steps = [stack.enter_context(CONTESTANTS[name](own)) for name, own in zip(CONTESTANTS, apart, strict=True)]
        together = [step() for step in steps]
    for name, total in zip(CONTESTANTS, together, strict=True):
        with CONTESTANTS[name](task) as step:
            assert step() == total
    weights = [next(own.denoiser.unet.parameters()).data_ptr() for own in apart]
    assert set(weights) == {next(task.denoiser.unet.parameters()).data_ptr()}  # the weights are shared
