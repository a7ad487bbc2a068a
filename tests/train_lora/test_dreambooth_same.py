"""What a training from pictures does not depend on: how a batch is split, memory, precision, global random state."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.ldm_unet import ResBlock, TransformerBlock, UNet
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from gradients import gradients
from lora_trainings import CONFIG, example, grown, new, trained_loras
from tiny import TinyDenoiser, tiny_unet
from worlds import relative


@pytest.mark.parametrize("sizes", [[(8, 8)], [(8, 8), (8, 16), (16, 8), (8, 8)]], ids=["one_size", "mixed"])
def test_accumulating_gradients_gives_what_one_large_batch_gives(unet: UNet, sizes: list[tuple[int, int]]) -> None:
    examples = [example(1 + i, size) for i, size in enumerate(sizes)]
    config = replace(CONFIG, steps=2, batch=4, clip=math.inf)
    outcomes: list[list[Tensor]] = []
    for micro_batch in (1, 3, 16):
        with gradients() as seen:
            split = replace(config, micro_batch=micro_batch)
            trained_loras(TinyDenoiser(unet), new(), split, examples, [example(9, (16, 8))])
        outcomes.append(seen)
    for other in outcomes[1:]:
        assert all(relative(a, b) < 1e-5 for a, b in zip(other, outcomes[0], strict=True))


class Shapes(TinyDenoiser):
    """Notes the shape of every batch that goes through."""

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Any) -> Tensor:
        self.__dict__.setdefault("shapes", []).append(tuple(x.shape))
        return super().__call__(x, sigma, conditions)


def test_a_batch_holds_one_size_and_a_forward_at_most_the_micro_batch(unet: UNet) -> None:
    denoiser = Shapes(unet)
    examples = [example(1), example(2, (8, 16)), example(3, (8, 16))]
    trained_loras(denoiser, new(), replace(CONFIG, steps=3, batch=3, micro_batch=2), examples)
    shapes = denoiser.__dict__["shapes"]
    assert [shape[0] for shape in shapes] == [2, 1] * 3
    assert all(shapes[i][1:] == shapes[i + 1][1:] for i in (0, 2, 4))
    assert {shape[2:] for shape in shapes} == {(8, 8), (8, 16)}


def test_gradient_checkpointing_changes_nothing(unet: UNet) -> None:
    plain = trained_loras(TinyDenoiser(unet), grown()).numbers
    blocks = [module for module in unet.modules() if isinstance(module, TransformerBlock | ResBlock)]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    try:
        assert torch.equal(trained_loras(TinyDenoiser(unet), grown()).numbers, plain)
    finally:
        for block in blocks:
            del block.forward


def test_a_step_that_runs_out_of_memory_goes_on_under_the_smaller_plan(unet: UNet) -> None:
    calls = iter(range(10_000))

    def full(x0: Tensor) -> Tensor:
        if next(calls) == 1:  # the second step's only forward
            raise torch.cuda.OutOfMemoryError("full")
        return x0

    planner = MemoryPlanner([MemoryPlan(8, "none"), MemoryPlan(1, "none")])
    outcome = trained_loras(TinyDenoiser(unet, spoil=full), new(), planner=planner)
    expected = trained_loras(TinyDenoiser(unet), new(), replace(CONFIG, micro_batch=1))
    assert planner.current == MemoryPlan(1, "none") and "memory ran out" in planner.notes[0]
    assert relative(outcome.numbers, expected.numbers) < 1e-4


def test_a_seed_decides_everything_and_global_random_state_nothing(unet: UNet) -> None:
    examples = [example(1), example(2)]
    state = torch.get_rng_state()
    try:
        one = trained_loras(TinyDenoiser(unet), new(), CONFIG, examples).numbers
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(99)
        assert torch.equal(trained_loras(TinyDenoiser(unet), new(), CONFIG, examples).numbers, one)
    finally:
        torch.set_rng_state(state)
    other = trained_loras(TinyDenoiser(unet), new(), replace(CONFIG, seed=5), examples).numbers
    assert relative(other, one) > 1e-3


def test_half_precision_gradients_do_not_vanish() -> None:
    """Of a mean over 4·32·32 numbers each gets 2e-4 of the gradient; unscaled, fp16 would round much of it away."""
    config, wide = replace(CONFIG, steps=1, batch=1, clip=math.inf), [example(1, (32, 32))]
    rows: list[Tensor] = []
    for dtype in (torch.float64, torch.float16):
        with gradients() as seen:
            trained_loras(TinyDenoiser(tiny_unet(dtype)), grown(), config, wide)
        rows.append(seen[0])
    assert relative(rows[1], rows[0]) < 0.05
