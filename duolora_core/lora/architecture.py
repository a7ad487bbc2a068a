"""Which model family a LoRA was made for, when it plainly is not SDXL."""

from __future__ import annotations

import re
from collections.abc import Mapping

_N = r"[._]\d+[._]"
_SPELLINGS = (
    # The most telling names first: many families share some of their blocks' names.
    ("Flux.2", r"double_stream_modulation|single_transformer_blocks[._]\d+[._]attn[._]to_qkv_mlp_proj"),
    ("Chroma", r"distilled_guidance_layer"),
    ("HunyuanVideo", r"double_blocks\.\d+\.(?:img|txt)_attn_(?:qkv|proj)|individual_token_refiner"),
    ("Flux.1", r"double_blocks\.\d+\."),
    ("HiDream", r"(?:double|single)_stream_blocks[._]\d+"),
    ("Qwen-Image", rf"transformer_blocks{_N}(?:img|txt)_(?:mlp|mod)"),
    # Written with underscores, or as diffusers has it, both families have the same names.
    ("Flux.1 or HunyuanVideo", r"double_blocks_\d+|single_transformer_blocks[._]\d+|single_blocks[._]\d+"),
    ("Stable Diffusion 3", r"joint_blocks[._]\d+"),
    ("AuraFlow", r"joint_transformer_blocks[._]\d+"),
    ("Z-Image or Lumina 2", rf"(?:noise|context)_refiner[._]\d+|(?:^|[._])layers{_N}(?:attention|feed_forward|adaLN)"),
    ("Krea 2", rf"(?:^|[._])blocks{_N}attn[._]w[qkvo]$"),
    ("Anima or Cosmos", rf"llm_adapter|(?:^|[._])blocks{_N}(?:self_attn|cross_attn)[._](?:[qkv]|output)_proj"),
    ("Wan", rf"(?:^|[._])blocks{_N}(?:self_attn[._][qkvo]$|cross_attn[._][qkvo](?:_img)?$|ffn)"),
    ("Stable Cascade", r"^lora_prior_"),
    # With image and text in one attention, but none of the names above.
    ("Stable Diffusion 3 or another double-stream transformer", rf"transformer_blocks{_N}attn[._]add_[qkv]_proj"),
    (
        "LTX-Video, PixArt, HunyuanDiT or a similar transformer",
        r"^(?:transformer|lora_transformer|lycoris_transformer|diffusion_model)[._]transformer_blocks",
    ),
)
_CROSS_ATTENTION_WIDTH = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2.x", 1280: "the SDXL refiner"}


def foreign_architecture(inputs: Mapping[str, int | None]) -> str | None:
    """The family that {spelled layer: columns of its weight} was made for, or None if it may be SDXL's.

    Other families are known by their block names; Stable Diffusion 1 and 2, which share SDXL's names, by the width
    of the text states that cross-attention keys read (768 and 1024 instead of SDXL's 2048).
    """
    for family, pattern in _SPELLINGS:
        if any(re.search(pattern, layer) for layer in inputs):
            return family
    for layer, width in inputs.items():
        if re.search(r"attn2[._](?:processor[._])?to_[kv]$", layer):
            return _CROSS_ATTENTION_WIDTH.get(width or 0)
    return None
