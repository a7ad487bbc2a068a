"""How strong two LoRAs are in each block and how far they point the same way, before and after their masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .each_layer import each_layer
from .gates import Gates
from .low_rank import LowRank
from .pair import LoraPair


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

    def measured(name: str, _: None) -> tuple[Overlap, Overlap]:
        content, style = pair.content.get(name), pair.style.get(name)
        gated = (
            content and content.gated(gates.content(name).detach().cpu()),
            style and style.gated(gates.style(name).detach().cpu()),
        )
        return _overlap(content, style), _overlap(*gated)

    by_layer = each_layer(measured, dict.fromkeys(pair.names))
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


def _overlap(content: LowRank | None, style: LowRank | None) -> Overlap:
    return Overlap(_inner(content, content), _inner(style, style), _inner(content, style))


def _inner(a: LowRank | None, b: LowRank | None) -> float:
    """⟨ΔW_a, ΔW_b⟩ from two (rank, rank) products; in float64, since nearly orthogonal ones cancel."""
    if a is None or b is None:
        return 0.0
    ups = a.up.to(torch.float64).T @ b.up.to(torch.float64)  # (rank a, rank b)
    downs = a.down.to(torch.float64) @ b.down.to(torch.float64).T  # (rank a, rank b)
    return float((ups * downs).sum())


def _sum(overlaps: Iterable[Overlap]) -> Overlap:
    terms = list(overlaps)
    return Overlap(sum(t.content for t in terms), sum(t.style for t in terms), sum(t.inner for t in terms))


def _root_ratio(after: float, before: float) -> float | None:
    return (max(after, 0.0) / before) ** 0.5 if before > 0 else None
