"""Which model family a LoRA was made for, when it plainly is not SDXL."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_SPELLINGS = (
    ("Flux", r"double_blocks[._]\d+|single_transformer_blocks[._]\d+|single_blocks[._]\d+"),
    ("Stable Diffusion 3", r"joint_blocks[._]\d+|transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj"),
    ("Wan or another video model", r"(?:^|[._])blocks[._]\d+[._](?:cross_attn|self_attn|ffn)"),
    ("PixArt, HunyuanDiT or a similar transformer", r"^(?:transformer|lora_transformer|lycoris_transformer)[._]"),
    ("Stable Cascade", r"^lora_prior_"),
)
_CROSS_ATTENTION_WIDTH = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2.x", 1280: "the SDXL refiner"}


def foreign_architecture(downs: Mapping[str, Tensor]) -> str | None:
    """The family that {spelled layer: down weight} was made for, or None if it may be SDXL's.

    Other families are known by their block names; Stable Diffusion 1 and 2, which share SDXL's names, by the width
    of the text states that cross-attention keys read (768 and 1024 instead of SDXL's 2048).
    """
    for family, pattern in _SPELLINGS:
        if any(re.search(pattern, layer) for layer in downs):
            return family
    for layer, down in downs.items():
        if re.search(r"attn2[._](?:processor[._])?to_[kv]$", layer):
            return _CROSS_ATTENTION_WIDTH.get(down.shape[1])
    return None
