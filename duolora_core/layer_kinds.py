"""The kinds of layers in a UNet, and how open the masks are in each kind of each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .gates import Gates
from .pair import LoraPair

LayerKind = Literal["self-attention", "cross-attention", "feed-forward", "projection", "convolution", "embedding"]
KINDS: tuple[LayerKind, ...] = get_args(LayerKind)

_MARKS: tuple[tuple[LayerKind, tuple[str, ...]], ...] = (
    ("self-attention", (".attn1.",)),
    ("cross-attention", (".attn2.",)),
    ("feed-forward", (".ff.",)),
    ("projection", (".proj_in", ".proj_out")),
    ("embedding", (".emb_layers.", "time_embed.", "label_emb.")),
)


def layer_kind(name: str) -> LayerKind:
    """What a layer does, from its canonical name; in SDXL's UNet everything else is a convolution."""
    for kind, marks in _MARKS:
        if any(mark in name for mark in marks):
            return kind
    return "convolution"


@dataclass(frozen=True)
class KindGates:
    """Mean |m| of both LoRAs over the layers of one kind in one block; None where a LoRA has no such layer."""

    block: str
    kind: LayerKind
    content_mean: float | None
    style_mean: float | None


def kind_statistics(gates: Gates, pair: LoraPair) -> list[KindGates]:
    """One KindGates for each kind in each covered block, blocks in forward order."""
    magnitudes = gates.values.detach().abs().cpu()
    grouped: dict[tuple[str, LayerKind], list[str]] = {}
    for name in gates.slots:
        block = pair.layout.layers[name].block.diffusers
        grouped.setdefault((block, layer_kind(name)), []).append(name)
    return [
        KindGates(
            block,
            kind,
            _mean([magnitudes[gates.slots[name].content] for name in names]),
            _mean([magnitudes[gates.slots[name].style] for name in names]),
        )
        for (block, kind), names in grouped.items()
    ]


def _mean(parts: Sequence[Tensor]) -> float | None:
    values = torch.cat(list(parts))
    return float(values.mean()) if len(values) else None
