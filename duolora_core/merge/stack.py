"""Content and style LoRAs stacked for one model: the frozen part of a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from torch import Tensor

from ..errors import ModelMismatchError, SettingsError
from ..lora.low_rank import LowRank
from ..lora.match import PlacedLora
from ..lora.parallel_layers import map_layers
from ..model.layout import UNetLayout

Basis = Literal["svd", "factors"]
Side = Literal["content", "style"]

MOST_LORAS = 8


def label(side: Side, number: int) -> str:
    """What the LoRA of this number among those of its side is called in batches and reports."""
    return side if number == 0 else f"{side} {number + 1}"


@dataclass(frozen=True)
class LoraStack:
    """All LoRAs of a merge, side by side in every layer: first those of content, then those of style.

        up = [U_1 … U_N] (out, R)        down = [D_1; …; D_N] (R, in)        R = r_1 + … + r_N

    Made by `make_stack`.

    Attributes:
        contents, styles: at least one of each; their layers are in `basis`, the one in which gates act
        router: {canonical layer: (R, R)}, empty where there is none: the merge's up is up · router, see `router`
    """

    layout: UNetLayout
    contents: tuple[PlacedLora, ...]
    styles: tuple[PlacedLora, ...]
    basis: Basis
    router: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def loras(self) -> tuple[PlacedLora, ...]:
        return (*self.contents, *self.styles)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of each LoRA: content, content 2, …, style, style 2, …"""
        contents, styles = range(len(self.contents)), range(len(self.styles))
        return (*(label("content", i) for i in contents), *(label("style", i) for i in styles))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every covered layer, in the forward order of the UNet."""
        return tuple(name for name in self.layout.layers if any(name in lora.layers for lora in self.loras))

    def ranks(self, name: str) -> tuple[int, ...]:
        """The rank of each LoRA in a layer; 0 where it does not cover it."""
        return tuple(lora.layers[name].rank if name in lora.layers else 0 for lora in self.loras)


@dataclass(frozen=True)
class LoraPair(LoraStack):
    """One content and one style LoRA. Made by `make_pair`."""

    @property
    def content_lora(self) -> PlacedLora:
        return self.contents[0]

    @property
    def style_lora(self) -> PlacedLora:
        return self.styles[0]

    @property
    def content(self) -> Mapping[str, LowRank]:
        """{canonical layer: LowRank}; a layer that the content LoRA lacks is missing here."""
        return self.content_lora.layers

    @property
    def style(self) -> Mapping[str, LowRank]:
        """The same for the style LoRA."""
        return self.style_lora.layers


def make_pair(content: PlacedLora, style: PlacedLora, layout: UNetLayout, basis: Basis = "svd") -> LoraPair:
    """`make_stack` of two LoRAs; raises the same."""
    stack = make_stack([content], [style], layout, basis)
    return LoraPair(layout, stack.contents, stack.styles, basis)


def make_stack(
    contents: Sequence[PlacedLora], styles: Sequence[PlacedLora], layout: UNetLayout, basis: Basis = "svd"
) -> LoraStack:
    """Stacks LoRAs; with `basis = "svd"` each layer of each is re-factored to its SVD basis first.

    Raises:
        ModelMismatchError: two LoRAs were placed on different models, or made for different text encoders.
        SettingsError: there are too many of them, or no content or no style LoRA.
    """
    loras = [*contents, *styles]
    if not contents or not styles or len(loras) > MOST_LORAS:
        raise SettingsError(
            f"A merge takes at least one content and one style LoRA and {MOST_LORAS} in all; "
            f"here are {len(contents)} and {len(styles)}."
        )
    for placed in loras:
        strange = [name for name in placed.layers if name not in layout.layers]
        if strange:
            raise ModelMismatchError(f"{placed.file.name}: layer {strange[0]} is not in this model's UNet.")
    _require_one_text_encoder(loras)
    in_basis = [tuple(_in_basis(lora, basis) for lora in side) for side in (contents, styles)]
    return LoraStack(layout, in_basis[0], in_basis[1], basis)


def _require_one_text_encoder(loras: Sequence[PlacedLora]) -> None:
    """Refuses LoRAs whose text encoder parts cannot be summed."""
    seen: dict[str, tuple[PlacedLora, tuple[int, int]]] = {}
    for lora in loras:
        for name, low_rank in lora.text.items():
            shape = low_rank.up.shape[0], low_rank.down.shape[1]
            first, expected = seen.setdefault(name, (lora, shape))
            if shape != expected:
                raise ModelMismatchError(
                    f"Text encoder layer {name} has shape {expected} in {first.file.name} and {shape} in "
                    f"{lora.file.name}: one of them was made for another text encoder. Choose LoRAs of the "
                    "checkpoint's family."
                )


def _in_basis(placed: PlacedLora, basis: Basis) -> PlacedLora:
    if basis == "factors":
        return placed
    return replace(placed, layers=map_layers(lambda _, lora: lora.svd_basis(), placed.layers))
