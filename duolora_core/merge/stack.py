"""A content and a style LoRA stacked for one model: the frozen part of a merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ..errors import ModelMismatchError
from ..lora.low_rank import LowRank
from ..lora.match import PlacedLora
from ..lora.parallel_layers import map_layers
from ..model.layout import UNetLayout

Basis = Literal["svd", "factors"]


@dataclass(frozen=True)
class LoraPair:
    """Both LoRAs of every layer that either covers. Made by `make_pair`.

    Attributes:
        content_lora, style_lora: their layers are in `basis`, the one in which gates act
    """

    layout: UNetLayout
    content_lora: PlacedLora
    style_lora: PlacedLora
    basis: Basis

    @property
    def content(self) -> Mapping[str, LowRank]:
        """{canonical layer: LowRank}; a layer that the content LoRA lacks is missing here."""
        return self.content_lora.layers

    @property
    def style(self) -> Mapping[str, LowRank]:
        """The same for the style LoRA."""
        return self.style_lora.layers

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every covered layer, in the forward order of the UNet."""
        return tuple(name for name in self.layout.layers if name in self.content or name in self.style)

    def ranks(self, name: str) -> tuple[int, int]:
        """(content rank, style rank) of a layer; 0 where a LoRA does not cover it."""
        return (
            self.content[name].rank if name in self.content else 0,
            self.style[name].rank if name in self.style else 0,
        )


def make_pair(content: PlacedLora, style: PlacedLora, layout: UNetLayout, basis: Basis = "svd") -> LoraPair:
    """Stacks two LoRAs; with `basis = "svd"` each layer of each is re-factored to its SVD basis first.

    Raises:
        ModelMismatchError: the two LoRAs were placed on different models, or made for different text encoders.
    """
    for placed in (content, style):
        strange = [name for name in placed.layers if name not in layout.layers]
        if strange:
            raise ModelMismatchError(f"{placed.file.name}: layer {strange[0]} is not in this model's UNet.")
    for name in content.text.keys() & style.text.keys():
        ours, theirs = ((each.text[name].up.shape[0], each.text[name].down.shape[1]) for each in (content, style))
        if ours != theirs:
            raise ModelMismatchError(
                f"Text encoder layer {name} has shape {ours} in {content.file.name} and {theirs} in {style.file.name}: "
                "one of them was made for another text encoder. Choose LoRAs of the checkpoint's family."
            )
    return LoraPair(layout, _in_basis(content, basis), _in_basis(style, basis), basis)


def _in_basis(placed: PlacedLora, basis: Basis) -> PlacedLora:
    if basis == "factors":
        return placed
    return replace(placed, layers=map_layers(lambda _, lora: lora.svd_basis(), placed.layers))
