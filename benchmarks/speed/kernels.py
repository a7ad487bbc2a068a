"""How many kernels a default training step starts on SDXL's full structure, counted on the meta device.

    python -m benchmarks.speed.kernels

Small pictures and large cards wait for the launches, not for the arithmetic. Counted is every operation that reaches
PyTorch's dispatcher and is neither a view nor an allocation; some of them start more than one kernel on a card. One
line for each set of LoRAs; the last line is JSON: kernels_a_step, by set.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.ldm_unet import SDXL, UNetConfig
from benchmarks.random_sdxl import UNetDenoiser, random_unet
from benchmarks.speed.contestants import Task, exact
from benchmarks.speed.live_memory import fused_attention
from benchmarks.speed.meta import ReadingOnes
from benchmarks.speed.stages import CASES
from duolora_core import LowRank, MergeConfig, PlacedLora, UNetLayout, make_pair
from duolora_core.lora.read import LoraFile


@dataclass(frozen=True)
class LoraSet:
    """Two LoRAs on the layers whose name a pattern finds."""

    pattern: str
    content_rank: int
    style_rank: int


LORA_SETS = {
    "attention": LoraSet(CASES["attention"], 64, 64),
    "linears": LoraSet(CASES["linears"], 64, 32),
}

_NO_KERNEL = frozenset(
    (
        "_local_scalar_dense",
        "_reshape_alias",
        "_unsafe_view",
        "alias",
        "as_strided",
        "detach",
        "diagonal",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "permute",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unsqueeze",
        "view",
    )
)
"""Views, allocations, and reading a number, which waits but computes nothing."""


def step_kernels(loras: LoraSet, config: UNetConfig = SDXL, pixels: int = 1024) -> Counter[str]:
    """{operation: how often a default step in bf16 starts it}; what the first step makes for all is not counted."""
    denoiser = UNetDenoiser(random_unet(config, torch.bfloat16, "meta"))
    content, style = (_concept(denoiser.layout, loras.pattern, r) for r in (loras.content_rank, loras.style_rank))
    task = Task(denoiser, make_pair(content, style, denoiser.layout, "factors"), pixels, MergeConfig())
    with ReadingOnes(), fused_attention(), exact(task) as step:
        step()
        return kernels(step, "meta")


def kernels(work: Callable[[], object], device: str) -> Counter[str]:
    """{operation: how often the function starts it on that kind of device}."""
    with _Kernels(device) as counter:
        work()
    return counter.started


class _Kernels(TorchDispatchMode):
    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self.started: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        touched = (leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        if name not in _NO_KERNEL and any(tensor.device.type == self._device for tensor in touched):
            self.started[name] += 1
        return result


def _concept(layout: UNetLayout, pattern: str, rank: int) -> PlacedLora:
    """A LoRA without values."""
    covered = {n: layer.shape for n, layer in layout.layers.items() if len(layer.shape) > 1 and re.search(pattern, n)}
    with torch.device("meta"):
        layers = {
            name: LowRank(torch.empty(shape[0], rank), torch.empty(rank, math.prod(shape[1:])))
            for name, shape in covered.items()
        }
    return PlacedLora(LoraFile("on meta", "", {}), 1.0, layers, {}, {}, {})


def main() -> None:
    totals: dict[str, int] = {}
    for name, loras in LORA_SETS.items():
        started = step_kernels(loras)
        totals[name] = started.total()
        most = ", ".join(f"{operation} {count}" for operation, count in started.most_common(8))
        sys.stdout.write(
            f"{name}, ranks {loras.content_rank} and {loras.style_rank}: {totals[name]} kernels a step ({most})\n"
        )
    sys.stdout.write(json.dumps({"kernels_a_step": totals}) + "\n")


if __name__ == "__main__":
    main()
