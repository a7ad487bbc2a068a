"""The grammar of LoRA key names: which layer a key speaks of, and which part of the adapter it holds.

A key is `<prefix><layer><suffix>`. The suffix names the part (up, down, mid, alpha, …); prefix and layer spelling
differ by trainer (kohya, diffusers, PEFT, LyCORIS, ComfyUI) and are undone by `unet_layer` and `text_layer`.
"""

from __future__ import annotations

import re
from typing import Literal

from ..model.layout import UNetLayout

Part = Literal["up", "down", "mid", "alpha", "weight_offset", "bias_offset"]

_ADAPTER = r"(?:\.(?!weight$)[^.]+)?"  # the adapter name that PEFT puts in: `.lora_A.default.weight`
_PARTS: tuple[tuple[Part, re.Pattern[str]], ...] = (
    ("up", re.compile(rf"\.lora_up\.weight$|\.lora_B{_ADAPTER}(?:\.weight)?$|[._]lora\.up\.weight$")),
    ("down", re.compile(rf"\.lora_down\.weight$|\.lora_A{_ADAPTER}(?:\.weight)?$|[._]lora\.down\.weight$")),
    ("up", re.compile(r"\.lora_linear_layer\.up\.weight$")),
    ("down", re.compile(r"\.lora_linear_layer\.down\.weight$")),
    ("mid", re.compile(r"\.lora_mid\.weight$")),
    ("alpha", re.compile(r"(?:[._]lora)?\.alpha$")),
    ("weight_offset", re.compile(r"\.(?:diff|w_norm)$")),
    ("bias_offset", re.compile(r"\.(?:diff_b|b_norm)$")),
)
_FOREIGN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("DoRA", re.compile(r"\.(?:dora_scale|lora_magnitude_vector.*)$")),
    ("LoHa", re.compile(r"\.hada_(?:w[12]_[ab]|t[12])$")),
    ("LoKr", re.compile(r"\.lokr_(?:w[12](?:_[ab])?|t2)$")),
    ("OFT", re.compile(r"\.(?:oft_.*|rescale)$")),
    ("GLoRA", re.compile(r"\.[ab][12]\.weight$")),
    ("(IA)³", re.compile(r"\.on_input$")),
    ("full weight replacement", re.compile(r"\.(?:set_weight|reshape_weight)$")),
)

_UNET_PREFIX = re.compile(
    r"^(?:lora_unet_|lycoris_(?:unet_)?"
    r"|(?:base_model\.model\.)?(?:unet\.){0,2}(?:base_model\.model\.)?(?:model\.)?(?:diffusion_model\.)?)"
)
_TEXT_ROOTS = {
    "lora_te1_": "te1",
    "lora_te2_": "te2",
    "lora_te_": "te1",
    "text_encoder.": "te1",
    "text_encoder_2.": "te2",
    "lycoris_text_encoder_2_": "te2",
    "lycoris_text_encoder_": "te1",
    "text_encoders.clip_l.transformer.": "te1",
    "text_encoders.clip_g.transformer.": "te2",
    "base_model.model.text_encoder.": "te1",
    "base_model.model.text_encoder_2.": "te2",
}
_TEXT_LAYER = re.compile(
    r"^(?:base_model[._]model[._])?text_model[._]encoder[._]layers[._](\d+)[._]"
    r"(self_attn[._](?:q|k|v|out)_proj|mlp[._]fc[12])$"
)


def split_key(key: str) -> tuple[str, Part] | None:
    """(layer with its prefix, part) of a key of a plain LoRA, LoCon or 1-D offset; None for anything else."""
    for part, pattern in _PARTS:
        match = pattern.search(key)
        if match:
            return key[: match.start()], part
    return None


def foreign_kind(key: str) -> tuple[str, str] | None:
    """(layer with its prefix, kind of adapter) if the key belongs to an adapter that is not a plain LoRA."""
    for kind, pattern in _FOREIGN:
        match = pattern.search(key)
        if match:
            return key[: match.start()], kind
    return None


def unet_layer(prefixed: str, layout: UNetLayout) -> str | None:
    """The canonical layer of `layout` that a prefixed spelling means, or None if the UNet has no such layer."""
    bare = _UNET_PREFIX.sub("", prefixed, count=1).replace(".processor.", ".")
    return layout.aliases.get(bare)


def text_layer(prefixed: str) -> str | None:
    """The kohya name (`lora_te1_text_model_encoder_layers_0_mlp_fc1`) of a text-encoder layer, or None."""
    for root, encoder in _TEXT_ROOTS.items():
        if not prefixed.startswith(root):
            continue
        bare = prefixed[len(root) :]
        if bare in ("text_projection", "text_model_text_projection"):
            return f"lora_{encoder}_text_projection"
        match = _TEXT_LAYER.match(bare)
        if match:
            return f"lora_{encoder}_text_model_encoder_layers_{match[1]}_{match[2].replace('.', '_')}"
    return None
