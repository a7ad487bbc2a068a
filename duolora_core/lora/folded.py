"""An ordinary LoRA: what every merge and every training ends in, and what is written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..model.layout import UNetLayout
from .low_rank import LowRank
from .match import PlacedLora


@dataclass(frozen=True)
class FoldedLora:
    """An ordinary LoRA.

    Attributes:
        layers: {canonical UNet layer: LowRank}
        text: {name of a text-encoder layer, see `keys.text_layer`: LowRank}
        offsets: {(canonical layer, "weight" | "bias"): (channels,)}
        shapes: {canonical UNet layer: shape of the weight it changes}
        error: relative Frobenius error of dropping components and of recompression, over all layers together
        text_offsets: {(name of a text-encoder layer, "weight" | "bias"): (channels,)}
    """

    layers: Mapping[str, LowRank]
    text: Mapping[str, LowRank]
    offsets: Mapping[tuple[str, str], Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    error: float
    text_offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])


def unet_part(lora: PlacedLora, layout: UNetLayout) -> FoldedLora:
    """One placed LoRA by itself as an ordinary LoRA; its text encoder part, which CLIP takes, is left out."""
    names = dict.fromkeys([*lora.layers, *(name for name, _ in lora.offsets)])
    shapes = {name: layout.layers[name].shape for name in names}
    return FoldedLora(lora.layers, {}, lora.offsets, shapes, 0.0)
