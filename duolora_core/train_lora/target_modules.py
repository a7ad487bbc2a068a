"""Which layers a LoRA trains: by kind, and by block where a method trains some blocks alone (B-LoRA, UnZipLoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import SettingsError
from ..merge.roles import layer_roles
from ..model.layer_kinds import LayerKind, layer_kind
from ..model.layout import UNetLayout
from .trainable_lora import Side, TrainableLora, new_lora

TargetModules = Literal["attention", "attention and feed-forward", "transformers", "all"]
"""Queries, keys, values and outputs of attention (the papers' choice); with feed-forward; with the projections around a
transformer (kohya's default); with the convolutions of the residual and resampling blocks too."""

_KINDS: Mapping[TargetModules, tuple[LayerKind, ...]] = {
    "attention": ("self-attention", "cross-attention"),
    "attention and feed-forward": ("self-attention", "cross-attention", "feed-forward"),
    "transformers": ("self-attention", "cross-attention", "feed-forward", "projection"),
    "all": ("self-attention", "cross-attention", "feed-forward", "projection", "convolution"),
}

B_LORA_BLOCKS = "up_blocks.0.attentions.0=content, up_blocks.0.attentions.1=style"
"""W4 and W5 of B-LoRA (arXiv 2403.14572), in the words of `layer_roles`."""


@dataclass(frozen=True)
class LoraConfig:
    """What a new LoRA looks like.

    Attributes:
        rank: of every layer
        alpha: None for the rank, so that the factors act as they are
        coverage: which kinds of layers
    """

    rank: int = 64
    alpha: float | None = None
    coverage: TargetModules = "attention"

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 1024:
            raise SettingsError(f"rank is {self.rank}, but must lie between 1 and 1024.")
        if self.alpha is not None and not self.alpha > 0:
            raise SettingsError(f"alpha is {self.alpha}, but must be above 0. Leave it out for the rank.")
        if self.coverage not in get_args(TargetModules):
            raise SettingsError(
                f"coverage is {self.coverage}, but must be one of {', '.join(get_args(TargetModules))}."
            )


def target_layers(layout: UNetLayout, coverage: TargetModules) -> tuple[str, ...]:
    """The layers of a choice in forward order; never embeddings, nor the first and the last convolution."""
    return tuple(
        name
        for name, layer in layout.layers.items()
        if layer.block.part != "other" and len(layer.shape) > 1 and layer_kind(name) in _KINDS[coverage]
    )


def concept_lora(layout: UNetLayout, role: Side, form: LoraConfig, seed: int = 0) -> dict[Side, TrainableLora]:
    """One new LoRA for one concept."""
    return {role: new_lora(layout, target_layers(layout, form.coverage), form.rank, form.alpha, seed)}


def b_loras(
    layout: UNetLayout, form: LoraConfig, seed: int = 0, blocks: str = B_LORA_BLOCKS
) -> dict[Side, TrainableLora]:
    """B-LoRA: a content and a style LoRA on one block each, to be trained as one (arXiv 2403.14572).

    Args:
        blocks: which are content and which style, as in `layer_roles`

    Raises:
        SettingsError: a block is not in this model, or one of the two has none.
    """
    roles = layer_roles(layout, blocks)
    names: dict[Side, list[str]] = {"content": [], "style": []}
    for name in target_layers(layout, form.coverage):
        role = roles[name]
        if role != "neutral":
            names[role].append(name)
    for role, chosen in names.items():
        if not chosen:
            raise SettingsError(f"B-LoRA needs a {role} block, but '{blocks}' gives none. Name one for each.")
    return {
        role: new_lora(layout, chosen, form.rank, form.alpha, seed + place)
        for place, (role, chosen) in enumerate(names.items())
    }
