"""What can be scaled after training beside the two strengths: one slider for both, and single blocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import SettingsError
from .merged import MergedLora, MergedPart

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
        side: of which LoRAs; the others stay as they are
    """

    layers: Collection[str]
    factor: float
    elsewhere: float = 1.0
    side: Side = "both"

    def of(self, layer: str) -> float:
        return self.factor if layer in self.layers else self.elsewhere


def scale_blocks(merged: MergedLora, weights: BlockWeights) -> MergedLora:
    """The merge with some of its layers scaled up or down; text encoder parts have no blocks and stay as they are.

    At factor 0 a layer leaves no trace in a file.
    """

    def scaled(part: MergedPart) -> MergedPart:
        if weights.side not in ("both", part.side):
            return part
        factors = {name: factor for name in part.layers if (factor := weights.of(name))}
        return replace(
            part,
            layers={name: part.layers[name].scaled(factor) for name, factor in factors.items()},
            gates={name: part.gates[name] for name in factors},
            offsets={key: value * weights.of(key[0]) for key, value in part.offsets.items() if weights.of(key[0])},
        )

    return replace(merged, parts=tuple(map(scaled, merged.parts)))


def strength_share(merged: MergedLora, layers: Collection[str], side: Literal["content", "style"]) -> float:
    """How much of one side's gated change lies in these layers: the share of ‖ΔW‖², 0 where it changes nothing."""
    within = total = 0.0
    for part in merged.parts:
        for name, lora in part.layers.items() if part.side == side else ():
            squared = lora.gated(part.gates[name]).norm() ** 2
            total += squared
            within += squared if name in layers else 0.0
    return within / total if total > 0 else 0.0
