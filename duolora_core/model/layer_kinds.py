"""The kinds of layers in a UNet."""

from __future__ import annotations

from typing import Literal, get_args

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
