"""A content and a style concept stacked for one model: the frozen part of a merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from .concept import Concept
from .each_layer import each_layer
from .errors import ModelMismatchError
from .low_rank import LowRank
from .unet_layout import UNetLayout

Basis = Literal["svd", "factors"]


@dataclass(frozen=True)
class LoraPair:
    """Both LoRAs of every layer that either covers. Made by `make_pair`.

    Attributes:
        content_concept, style_concept: their layers are in `basis`, the one in which gates act
    """

    layout: UNetLayout
    content_concept: Concept
    style_concept: Concept
    basis: Basis

    @property
    def content(self) -> Mapping[str, LowRank]:
        """{canonical layer: LowRank}; a layer that the content LoRA lacks is missing here."""
        return self.content_concept.layers

    @property
    def style(self) -> Mapping[str, LowRank]:
        """The same for the style LoRA."""
        return self.style_concept.layers

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


def make_pair(content: Concept, style: Concept, layout: UNetLayout, basis: Basis = "svd") -> LoraPair:
    """Stacks two concepts; with `basis = "svd"` each layer of each is re-factored to its SVD basis first.

    Raises:
        ModelMismatchError: the two LoRAs were placed on different models.
    """
    for concept in (content, style):
        strange = [name for name in concept.layers if name not in layout.layers]
        if strange:
            raise ModelMismatchError(f"{concept.file.name}: layer {strange[0]} is not in this model's UNet.")

    return LoraPair(layout, _in_basis(content, basis), _in_basis(style, basis), basis)


def _in_basis(concept: Concept, basis: Basis) -> Concept:
    if basis == "factors":
        return concept
    return replace(concept, layers=each_layer(lambda _, lora: lora.svd_basis(), concept.layers))
