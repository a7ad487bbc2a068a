"""What the training of a merge needs in memory, for the planner in `model.memory`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..model.memory.estimate import Workload
from .config import MergeConfig
from .stack import LoraStack
from .stacked import stacked_rank


def merge_workload(
    stack: LoraStack, sizes: Sequence[tuple[int, int]], config: MergeConfig, text_tokens: int = 77
) -> Workload:
    """The workload of `train`: a gate keeps the rank components that it multiplies.

    Args:
        sizes: (h, w) of the content and of the style latents
        text_tokens: of the longest prompt
    """
    with_cycle = config.cycle_weight != 0
    students = 4 if with_cycle and config.cycle_route == "differentiable" else 2
    kept = {name: sum(stack.ranks(name)) for name in stack.names}
    ups = 2 if config.routes(len(stack.loras)) else 1  # behind a router the merge has one of its own
    return stack_workload(stack, kept, sizes, students, 4 if with_cycle else 2, text_tokens, ups)


def stack_workload(
    stack: LoraStack,
    kept: Mapping[str, int],
    sizes: Sequence[tuple[int, int]],
    students: int,
    teachers: int,
    text_tokens: int,
    ups: int = 1,
) -> Workload:
    """The workload of a training on these LoRAs whose step has so many samples; only those of one size go together."""
    groups = len(set(sizes))
    return Workload(
        layout=stack.layout,
        kept=kept,
        factors=sum(_stacked_factors(stack, name, ups) for name in stack.names),
        latent=max(sizes, key=math.prod),
        students=students // groups,
        teachers=teachers // groups,
        text_tokens=text_tokens,
    )


def _stacked_factors(stack: LoraStack, name: str, ups: int) -> int:
    """Elements of all LoRAs' factors side by side, as `stacked` holds them."""
    layer = stack.layout.layers[name].shape
    ranks = stack.ranks(name)
    rank = stacked_rank(ranks) if len(layer) == 2 else sum(ranks)
    return rank * (ups * layer[0] + math.prod(layer[1:]))
