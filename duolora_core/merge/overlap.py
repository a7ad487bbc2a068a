"""How strong two LoRAs are in each block and how far they point the same way, before and after their masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lora.low_rank import LowRank
from ..lora.parallel_layers import map_layers
from .gates import Gates, open_gates
from .stack import LoraPair


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
    """One block: both LoRAs as they came, and gated by their masks."""

    name: str
    before: Overlap
    after: Overlap

    @property
    def content_kept(self) -> float | None:
        """‖gated ΔW_c‖ / ‖ΔW_c‖, or None where the content LoRA changes nothing."""
        return _root_ratio(self.after.content, self.before.content)

    @property
    def style_kept(self) -> float | None:
        """The same of the style LoRA."""
        return _root_ratio(self.after.style, self.before.style)


def block_overlaps(gates: Gates, pair: LoraPair) -> list[BlockOverlap]:
    """One BlockOverlap for each covered block, in forward order; no ΔW is ever formed."""

    ones = open_gates(pair)

    def measured(name: str, _: None) -> tuple[Overlap, Overlap]:
        sides = pair.content.get(name), pair.style.get(name)
        products = [_products(sides[i], sides[j]) for i, j in ((0, 0), (1, 1), (0, 1))]
        before, after = (_overlap(products, each.content(name), each.style(name)) for each in (ones, gates))
        return before, after

    by_layer = map_layers(measured, dict.fromkeys(pair.names))
    by_block: dict[str, list[tuple[Overlap, Overlap]]] = {}
    for name, overlaps in by_layer.items():
        by_block.setdefault(pair.layout.layers[name].block.diffusers, []).append(overlaps)
    return [
        BlockOverlap(block, _sum(before for before, _ in layers), _sum(after for _, after in layers))
        for block, layers in by_block.items()
    ]


def whole_overlap(blocks: Iterable[BlockOverlap]) -> BlockOverlap:
    """All blocks as one."""
    blocks = list(blocks)
    return BlockOverlap("all blocks", _sum(b.before for b in blocks), _sum(b.after for b in blocks))


def _products(a: LowRank | None, b: LowRank | None) -> Tensor:
    """(rank a, rank b) inner products of the rank components; none where a LoRA lacks the layer."""
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
