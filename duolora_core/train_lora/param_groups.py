"""The learning rate of every part of a LoRA, as the optimiser takes it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..merge.roles import Role, layer_roles
from ..model.layer_kinds import LayerKind, layer_kind
from ..model.layout import UNetLayout
from .config import Rates, TrainConfig
from .trainable_lora import Side, TrainableLora


def param_groups(
    loras: Mapping[Side, TrainableLora], layout: UNetLayout, config: TrainConfig, column_rate: float
) -> list[dict[str, object]]:
    """The optimiser's groups, one for each learning rate."""
    roles = layer_roles(layout, config.rates.prior)
    by_rate: dict[float, list[Tensor]] = {}
    for lora in loras.values():
        for name, tensor in lora.trained():
            layer, _, kind = name.rpartition(".")
            rate = column_rate if kind == "columns" else config.learning_rate * part_rate(config.rates, layer, roles)
            by_rate.setdefault(rate, []).append(tensor)
    return [{"params": tensors, "lr": rate, "full_rate": rate} for rate, tensors in by_rate.items()]


def part_rate(rates: Rates, layer: str, roles: Mapping[str, Role]) -> float:
    """The factor on a layer's learning rate."""
    kinds: dict[LayerKind, float] = {"feed-forward": rates.feed_forward, "projection": rates.projection}
    kinds |= {"convolution": rates.convolution}
    blocks: dict[Role, float] = {"content": rates.content_blocks, "style": rates.style_blocks}
    return kinds.get(layer_kind(layer), rates.attention) * blocks.get(roles[layer], 1.0)
