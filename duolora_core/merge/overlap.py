"""How strong content and style LoRAs are in each block and how far they agree, before and after their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lora.low_rank import LowRank, concat
from ..lora.parallel_layers import map_layers
from .gates import Gates, open_gates
from .merged import routed_layers
from .stack import LoraStack


@dataclass(frozen=True)
class Overlap:
    """‖ΔW_c‖², ‖ΔW_s‖² and ⟨ΔW_c, ΔW_s⟩ (Frobenius); over several layers all three add up."""

    content: float
    style: float
    inner: float

    @property
    def cosine(self) -> float | None:
        """⟨ΔW_c, ΔW_s⟩ / (‖ΔW_c‖ ‖ΔW_s‖), or None where one of the two changes nothing."""
        norms = (self.content * self.style) ** 0.5
        return self.inner / norms if norms > 0 else None


@dataclass(frozen=True)
class BlockOverlap:
    """One block: both sides as they came, and gated by their masks."""

    name: str
    before: Overlap
    after: Overlap

    @property
    def content_kept(self) -> float | None:
        """‖gated ΔW_c‖ / ‖ΔW_c‖, or None where no content LoRA changes anything."""
        return _root_ratio(self.after.content, self.before.content)

    @property
    def style_kept(self) -> float | None:
        """The same of style."""
        return _root_ratio(self.after.style, self.before.style)


def block_overlaps(gates: Gates, stack: LoraStack) -> list[BlockOverlap]:
    """One BlockOverlap for each covered block, in forward order; no ΔW is ever formed.

    All content LoRAs together are ΔW_c, all style LoRAs together ΔW_s; `after` also has the router's mixing in it.
    """
    ones, contents = open_gates(stack), len(stack.contents)
    alone, merged = [lora.layers for lora in stack.loras], routed_layers(stack)

    def measured(name: str, _: None) -> tuple[Overlap, Overlap]:
        before = _products(_sides(alone, contents, name))
        after = _products(_sides(merged, contents, name)) if stack.router else before
        terms = (before, ones), (after, gates)
        first, second = (_overlap(products, each.content(name), each.style(name)) for products, each in terms)
        return first, second

    by_layer = map_layers(measured, dict.fromkeys(stack.names))
    by_block: dict[str, list[tuple[Overlap, Overlap]]] = {}
    for name, overlaps in by_layer.items():
        by_block.setdefault(stack.layout.layers[name].block.diffusers, []).append(overlaps)
    return [
        BlockOverlap(block, _sum(before for before, _ in layers), _sum(after for _, after in layers))
        for block, layers in by_block.items()
    ]


def whole_overlap(blocks: Iterable[BlockOverlap]) -> BlockOverlap:
    """All blocks as one."""
    blocks = list(blocks)
    return BlockOverlap("all blocks", _sum(b.before for b in blocks), _sum(b.after for b in blocks))


def _sides(loras: Sequence[Mapping[str, LowRank]], contents: int, name: str) -> list[LowRank | None]:
    """The content and the style LoRAs of a layer, each as one; None where none of them covers it."""
    sides = ([lora[name] for lora in side if name in lora] for side in (loras[:contents], loras[contents:]))
    return [concat(side) if side else None for side in sides]


def _products(sides: Sequence[LowRank | None]) -> list[Tensor]:
    """Of content with itself, style with itself and content with style: the rank components' inner products.

    (rank a, rank b) each, with a rank of 0 where a side lacks the layer.
    """
    return [_inner(sides[i], sides[j]) for i, j in ((0, 0), (1, 1), (0, 1))]


def _inner(a: LowRank | None, b: LowRank | None) -> Tensor:
    if a is None or b is None:
        return torch.zeros(a.rank if a else 0, b.rank if b else 0)
    return (a.up.T @ b.up) * (a.down @ b.down.T)


def _overlap(products: Sequence[Tensor], content: Tensor, style: Tensor) -> Overlap:
    """⟨U_a diag(m_a) D_a, U_b diag(m_b) D_b⟩ = m_aᵀ P m_b for every pair of sides; sums in float64."""
    content, style = (gate.detach().to("cpu", torch.float64) for gate in (content, style))
    sides = (content, content), (style, style), (content, style)
    return Overlap(*(float(a @ p.to(torch.float64) @ b) for p, (a, b) in zip(products, sides, strict=True)))


def _sum(overlaps: Iterable[Overlap]) -> Overlap:
    terms = list(overlaps)
    return Overlap(sum(t.content for t in terms), sum(t.style for t in terms), sum(t.inner for t in terms))


def _root_ratio(after: float, before: float) -> float | None:
    return (max(after, 0.0) / before) ** 0.5 if before > 0 else None
