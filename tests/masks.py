"""ZipLoRA masks for the tests, and a small pair with layers of several kinds."""

from __future__ import annotations

import torch
from torch import Tensor

from duolora_core import Gates
from tiny import pick
from worlds import World, world

LAYERS = pick(
    r"^(time_embed\.0|input_blocks\.3\.0\.op|out\.2|middle_block\.0\.in_layers\.2"
    r"|middle_block\.1\.transformer_blocks\.[01]\.attn2\.to_[kv]|output_blocks\.4\.1\.transformer_blocks\.0\.ff\.net\.2)$"
)


def small_pair() -> World:
    """The first layer is the content LoRA's alone, the last the style LoRA's."""
    return world(LAYERS[:-1], LAYERS[1:], ranks=(3, 2))


def random_masks(masks: Gates, seed: int = 0) -> Tensor:
    """Around 0.6, some of them negative."""
    return 0.6 + 0.5 * torch.randn(masks.values.shape, generator=torch.Generator().manual_seed(seed))
