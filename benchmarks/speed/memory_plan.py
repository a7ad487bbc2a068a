"""The planner's estimate against the bytes that are alive in real forwards and backwards of full SDXL, on meta tensors.

    python -m benchmarks.speed.memory_plan

Two rank-64 LoRAs on all attention linears, bf16; no weights, no GPU, no randomness, one thread. Measured is everything
that operations make and somebody still holds: both LoRAs stacked, converted weights, activations, gradients. What an
operation uses inside itself and what an allocator wastes between blocks is in neither number. Then the plans that a
card of 8, 10, 11, 12, 16 or 24 GB gets, which are estimates. Then the same for devices without a fused attention
kernel, on which PyTorch holds all scores. The last line is JSON: the extremes of estimate / measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ldm_unet import SDXL, UNet, UNetConfig, layer_shapes
from benchmarks.random_sdxl import checkpointed
from benchmarks.speed.live_memory import LiveMemory, fused_attention, plain_attention
from duolora_core import (
    LoraFile,
    LoraPair,
    LowRank,
    MergeConfig,
    PlacedLora,
    UNetLayout,
    attach,
    layout_from_shapes,
    make_pair,
    open_gates,
)
from duolora_core.merge.workload import merge_workload
from duolora_core.model.branches import Branch
from duolora_core.model.frozen_layer import frozen_layer
from duolora_core.model.memory.attention import Scores
from duolora_core.model.memory.estimate import (
    CHECKPOINTED_LEVELS,
    WORKSPACES,
    MemoryPlan,
    Storage,
    Workload,
    candidate_plans,
    estimate,
    fits,
    plans_that_fit,
)

DTYPE, FP8 = torch.bfloat16, torch.float8_e4m3fn
GB = 2**30
RESERVED = 0.4 * GB
"""What ComfyUI keeps free on a card for other programs, on Linux."""


@dataclass(frozen=True)
class Subject:
    """A UNet on the meta device, and a pair of LoRAs for it.

    Attributes:
        scores: of attention without a fused kernel
    """

    unet: UNet
    pair: LoraPair
    weights_dtype: torch.dtype
    scores: Scores | None = None

    @property
    def storage(self) -> Storage:
        weights = sum(parameter.nbytes for parameter in self.unet.parameters())
        return Storage(weights, DTYPE.itemsize, self.weights_dtype != DTYPE, self.scores)

    def work(self, pixels: int) -> Workload:
        side = pixels // 8
        return merge_workload(self.pair, [(side, side)] * 2, MergeConfig())


def subject(config: UNetConfig = SDXL, rank: int = 64, layers: str = ".attn", weights: torch.dtype = DTYPE) -> Subject:
    """LoRAs of one rank on every weight matrix whose name contains `layers`."""
    with torch.device("meta"):
        unet = UNet(config).to(DTYPE).requires_grad_(False)
    layout = layout_from_shapes(layer_shapes(unet))
    for module in unet.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and weights != DTYPE:
            module.to(weights)
            module.forward = _casting(module)
    concepts = [_concept(layout, rank, layers) for _ in range(2)]
    return Subject(unet, make_pair(concepts[0], concepts[1], layout, "factors"), weights)


def measured(subject: Subject, pixels: int, plan: MemoryPlan) -> int:
    """Peak bytes beside the weights of the largest evaluations of one step."""
    work, gates = subject.work(pixels), open_gates(subject.pair)
    gates.values = gates.values.to("meta").requires_grad_()
    students, teachers = (min(plan.micro_batch, count) for count in (work.students, work.teachers))
    teaching: list[Branch] = ["content"] * teachers
    learning: list[Branch] = ["merge"] * students
    with (
        fused_attention() if subject.scores is None else plain_attention(subject.scores.element_size < 4),
        checkpointed(subject.unet, plan.checkpointing),
        attach(dict(subject.unet.named_modules()), subject.pair, gates) as gated,
        LiveMemory() as memory,
    ):
        with torch.no_grad(), gated.branches(teaching):
            _run(subject.unet, teachers, pixels)
        with gated.branches(learning):
            _run(subject.unet, students, pixels).float().square().mean().backward()
    return memory.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 768, 1024])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 2, 4])
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    ratios: list[float] = []
    say("weights  attention  pixels  micro-batch  checkpointing            estimate GB  measured GB  ratio")
    for weights, name in ((DTYPE, "bf16"), (FP8, "fp8")):
        on = subject(weights=weights)
        for pixels in wanted.pixels:
            for plan in (MemoryPlan(size, mode) for size in wanted.micro_batches for mode in CHECKPOINTED_LEVELS):
                ratios.append(row(f"{name:7}  fused    ", on, pixels, plan))
        say(f"\nPlans with {name} weights ({on.storage.weights / GB:.1f} GB), estimated:")
        for card in (8, 10, 11, 12, 16, 24):
            for pixels in wanted.pixels:
                free = int(card * GB - RESERVED - WORKSPACES - on.storage.weights)
                plan, needs = plans_that_fit(candidate_plans(on.work(pixels), on.storage, 4), free)[0]
                short = "" if fits(needs, free) else ": does not fit"
                say(f"  {card:2} GB card, {pixels:4} px: {plan}, {needs.total / GB:.1f} GB{short}")
        say("")
    for size, name in ((2, "2 bytes"), (4, "4 bytes")):
        on = replace(subject(), scores=Scores(SDXL.head, size))
        for pixels in wanted.pixels:
            for mode in CHECKPOINTED_LEVELS:
                ratios.append(row(f"bf16     {name:9}", on, pixels, MemoryPlan(1, mode)))
    say(json.dumps({"estimate_over_measured": [round(min(ratios), 3), round(max(ratios), 3)]}))


def row(name: str, on: Subject, pixels: int, plan: MemoryPlan) -> float:
    """Prints one row, and returns estimate / measured."""
    needs, truth = estimate(on.work(pixels), on.storage, plan).beside_weights, measured(on, pixels, plan)
    say(
        f"{name}  {pixels:6}  {plan.micro_batch:11}  {plan.checkpointing:24} {needs / GB:11.2f}  {truth / GB:11.2f}  "
        f"{needs / truth:5.3f}"
    )
    return needs / truth


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _run(unet: UNet, batch: int, pixels: int) -> Tensor:
    config, side = unet.config, pixels // 8
    with torch.device("meta"):
        x = torch.empty(batch, config.in_channels, side, side, dtype=DTYPE)
        text, pooled = (
            torch.empty(batch, 77, config.context, dtype=DTYPE),
            torch.empty(batch, config.pooled, dtype=DTYPE),
        )
        return unet(x, torch.empty(batch), text, pooled)


def _concept(layout: UNetLayout, rank: int, layers: str) -> PlacedLora:
    chosen = {name: layer.shape for name, layer in layout.layers.items() if layers in name and len(layer.shape) > 1}
    with torch.device("meta"):
        low_ranks = {
            name: LowRank(torch.empty(shape[0], rank), torch.empty(rank, math.prod(shape[1:])))
            for name, shape in chosen.items()
        }
    return PlacedLora(LoraFile("on meta", "", {}), 1.0, low_ranks, {}, {}, {})


def _casting(module: nn.Linear | nn.Conv2d) -> Any:
    """The forward of a layer stored in another dtype, as a host does it: convert, use, forget."""

    def convert(x: Tensor) -> Tensor:
        weight, bias = module.weight.to(x.dtype), None if module.bias is None else module.bias.to(x.dtype)
        if isinstance(module, nn.Linear):
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, module.stride, module.padding)

    def run(x: Tensor) -> Tensor:
        return frozen_layer(module, convert, x) if x.requires_grad else convert(x)

    return run


if __name__ == "__main__":
    main()
