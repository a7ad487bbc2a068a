"""What can be scaled after training beside the two strengths: one slider for both, and single blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ..errors import SettingsError
from ..lora.low_rank import LowRank
from .merged import MergedLayer, MergedLora

Side = Literal["both", "content", "style"]


def slider_strengths(balance: float) -> tuple[float, float]:
    """(content strength, style strength) = (min(1, 2 - 2b), min(1, 2b)): content alone at 0, both at 0.5, style at 1.

    Raises:
        SettingsError: the balance is not between 0 and 1.
    """
    if not 0.0 <= balance <= 1.0:
        raise SettingsError(f"The balance is {balance}, but must lie between 0 (content only) and 1 (style only).")
    return min(1.0, 2.0 - 2.0 * balance), min(1.0, 2.0 * balance)


@dataclass(frozen=True)
class BlockWeights:
    """A factor for some layers of a merge and another for the rest (Fig. 3 of arXiv 2504.13206).

    Attributes:
        layers: canonical names of the layers that are scaled
        factor: of these; any real number, 0 takes them out
        elsewhere: of all others
        side: of which LoRA; the other one stays as it is
    """

    layers: Collection[str]
    factor: float
    elsewhere: float = 1.0
    side: Side = "both"

    def of(self, layer: str) -> float:
        return self.factor if layer in self.layers else self.elsewhere


def scale_blocks(merged: MergedLora, weights: BlockWeights) -> MergedLora:
    """The merge with some of its layers scaled up or down; text encoder parts have no blocks and stay as they are."""
    content, style = weights.side != "style", weights.side != "content"

    def scaled(name: str, layer: MergedLayer) -> MergedLayer:
        factor = weights.of(name)
        return MergedLayer(
            content=_scaled(layer.content, factor) if content else layer.content,
            style=_scaled(layer.style, factor) if style else layer.style,
            content_gate=layer.content_gate,
            style_gate=layer.style_gate,
        )

    return replace(
        merged,
        layers={name: scaled(name, layer) for name, layer in merged.layers.items()},
        content_offsets=_offsets(merged.content_offsets, weights) if content else merged.content_offsets,
        style_offsets=_offsets(merged.style_offsets, weights) if style else merged.style_offsets,
    )


def strength_share(merged: MergedLora, layers: Collection[str], side: Literal["content", "style"]) -> float:
    """How much of one LoRA's gated change lies in these layers: the share of ‖ΔW‖², 0 where it changes nothing."""
    within = total = 0.0
    for name, layer in merged.layers.items():
        content = side == "content"
        lora, gate = (layer.content, layer.content_gate) if content else (layer.style, layer.style_gate)
        if lora is not None and gate is not None:
            squared = lora.gated(gate).norm() ** 2
            total += squared
            within += squared if name in layers else 0.0
    return within / total if total > 0 else 0.0


def _scaled(lora: LowRank | None, factor: float) -> LowRank | None:
    """None at factor 0, so that the layer leaves no trace in a file."""
    return lora.scaled(factor) if lora is not None and factor else None


def _offsets(offsets: Mapping[tuple[str, str], Tensor], weights: BlockWeights) -> dict[tuple[str, str], Tensor]:
    return {key: value * weights.of(key[0]) for key, value in offsets.items() if weights.of(key[0])}
