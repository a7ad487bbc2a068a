"""The masks: one trainable number per rank component of all LoRAs, and how they start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from .roles import Role
from .stack import LoraStack

DEAD_GATE = 0.01
"""A component whose |gate| is smaller is dead: it is not counted as active and not written into the merged file."""

Initialisation = Literal["ones", "random", "strongest"]


@dataclass(frozen=True)
class Slot:
    """Where a layer's gates lie in the flat vector: content first, then style.

    Attributes:
        content_rank, style_rank: of all content and of all style LoRAs together
        ranks: of each LoRA by itself; empty where there is one of either
    """

    start: int
    content_rank: int
    style_rank: int
    ranks: tuple[int, ...] = ()

    @property
    def each(self) -> list[slice]:
        """The gates of each LoRA."""
        ends = list(accumulate(self.ranks or (self.content_rank, self.style_rank), initial=self.start))
        return [slice(start, end) for start, end in pairwise(ends)]

    @property
    def content(self) -> slice:
        return slice(self.start, self.start + self.content_rank)

    @property
    def style(self) -> slice:
        return slice(self.start + self.content_rank, self.stop)

    @property
    def whole(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def stop(self) -> int:
        return self.start + self.content_rank + self.style_rank


@dataclass
class Gates:
    """All gates of a merge as one flat float32 vector.

    Attributes:
        values: (total,), the only trainable tensor of a merge
        slots: {canonical layer: Slot}, in forward order
    """

    values: Tensor
    slots: Mapping[str, Slot]

    def content(self, name: str) -> Tensor:
        return self.values[self.slots[name].content]  # (content rank,)

    def style(self, name: str) -> Tensor:
        return self.values[self.slots[name].style]  # (style rank,)

    def owners(self) -> Tensor:
        """(total,): the number of the LoRA, in the stack's order, to which a gate belongs."""
        owners = torch.zeros(self.values.shape, dtype=torch.long, device=self.values.device)
        for slot in self.slots.values():
            for number, place in enumerate(slot.each):
                owners[place] = number
        return owners

    def is_content(self) -> Tensor:
        """(total,) booleans: true where a gate belongs to a content LoRA."""
        mask = torch.zeros(self.values.shape, dtype=torch.bool, device=self.values.device)
        for slot in self.slots.values():
            mask[slot.content] = True
        return mask

    def copy(self) -> Gates:
        return Gates(self.values.detach().clone(), self.slots)


def open_gates(stack: LoraStack) -> Gates:
    """All ones: the plain sum of all LoRAs, as their router mixes them."""
    slots: dict[str, Slot] = {}
    start, contents = 0, len(stack.contents)
    for name in stack.names:
        ranks = stack.ranks(name)
        slots[name] = Slot(start, sum(ranks[:contents]), sum(ranks[contents:]), ranks)
        start = slots[name].stop
    return Gates(torch.ones(start), slots)


def initial_gates(
    stack: LoraStack,
    roles: Mapping[str, Role],
    initialisation: Initialisation = "ones",
    content_threshold: float = 0.1,
    style_threshold: float = 0.0,
    generator: torch.Generator | None = None,
) -> Gates:
    """Gates before training (section 3.3.2 and Algorithm 2 of arXiv 2504.13206).

    - `ones`: the plain sum.
    - `random`: v = randn(rank), scaled to [0, 1]; in a content layer m_c = 1[v > style_threshold] and
      m_s = 1[v > content_threshold], in a style layer the reverse, so that the dominant LoRA starts with more ones.
    - `strongest`: a share of 1 - threshold is ones, given to the first components: in the SVD basis the strongest.
    Neutral layers start with ones.
    """
    gates = open_gates(stack)
    if initialisation == "ones":
        return gates
    for name, slot in gates.slots.items():
        role = roles[name]
        if role == "neutral":
            continue
        dominant, other = style_threshold, content_threshold
        thresholds = (dominant, other) if role == "content" else (other, dominant)
        ranks = [place.stop - place.start for place in slot.each]
        v = torch.randn(max(ranks), generator=generator)
        for place, rank in zip(slot.each, ranks, strict=True):
            threshold = thresholds[place.start >= slot.style.start]
            if rank == 0:
                continue
            if initialisation == "random":
                gates.values[place] = (_unit_range(v[:rank]) > threshold).float()
            else:
                kept = math.ceil(rank * (1.0 - threshold) - 1e-9)  # not one more by rounding
                gates.values[place] = (torch.arange(rank) < kept).float()
    return gates


def _unit_range(v: Tensor) -> Tensor:
    span = v.max() - v.min()
    return (v - v.min()) / span if span > 0 else torch.ones_like(v)
