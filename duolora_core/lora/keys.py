"""The grammar of LoRA key names: which layer a key speaks of, and which part of the adapter it holds.

A key is `<prefix><layer><suffix>`. The suffix names the part (up, down, mid, alpha, …); prefix and layer spelling
differ by trainer (kohya, diffusers, PEFT, LyCORIS, ComfyUI) and are undone by `unet_layer` and `text_layer`.
"""

from __future__ import annotations

import re

from ..model.layout import UNetLayout

_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"  # the adapter name that PEFT puts in: `.lora_A.default.weight`
_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("up", re.compile(rf"\.lora_up\.weight$|\.lora_B{_ADAPTER}(?:\.weight)?$|[._]lora\.up\.weight$")),
    ("down", re.compile(rf"\.lora_down\.weight$|\.lora_A{_ADAPTER}(?:\.weight)?$|[._]lora\.down\.weight$")),
    ("up", re.compile(r"\.lora_linear_layer\.up\.weight$")),
    ("down", re.compile(r"\.lora_linear_layer\.down\.weight$")),
    ("mid", re.compile(r"\.lora_mid\.weight$")),
    ("up_bias", re.compile(rf"\.lora_(?:up|B{_ADAPTER})\.bias$")),
    ("importance", re.compile(rf"\.lora_E{_ADAPTER}(?:\.weight)?$")),  # AdaLoRA
    ("rank_count", re.compile(rf"\.ranknum{_ADAPTER}$")),
    ("alpha", re.compile(r"(?:[._]lora)?\.alpha$")),
    ("weight_offset", re.compile(r"\.(?:diff|w_norm)$")),
    ("bias_offset", re.compile(r"\.(?:diff_b|b_norm)$")),
    ("new_weight", re.compile(r"\.set_weight$")),
    ("dora_scale", re.compile(r"\.dora_scale$")),
    ("magnitude", re.compile(rf"\.(?:lora_magnitude_vector{_ADAPTER}(?:\.weight)?|magnitude)$")),
    *((part, re.compile(rf"\.{part}{_ADAPTER}$")) for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    *((part, re.compile(rf"\.{part}{_ADAPTER}$")) for part in ("hada_t1", "hada_t2", "lokr_w1", "lokr_w2", "lokr_t2")),
    *((f"lokr_w{w}_{f}", re.compile(rf"\.lokr_w{w}_{f}{_ADAPTER}$")) for w in "12" for f in "ab"),
    ("oft_blocks", re.compile(r"\.oft_blocks$")),
    ("rescale", re.compile(r"\.rescale$")),
    *((f"glora_{half}{i}", re.compile(rf"\.{half}{i}\.weight$")) for half in "ab" for i in "12"),
    ("on_input", re.compile(r"\.on_input$")),
    ("ia3_scales", re.compile(rf"\.ia3_l{_ADAPTER}(?:\.weight)?$")),
)
_FOREIGN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("an OFT of PEFT or of early trainers", re.compile(r"\.(?:oft_(?!blocks).*|boft_.*)$")),
    ("VeRA, VB-LoRA or another shared-basis adapter", re.compile(r"\.(?:vera_lambda_.*|vblora_.*|randlora_.*)$")),
    ("an enlarged weight (a control LoRA)", re.compile(r"\.reshape_weight$")),
    ("a GLoRA with a Tucker core", re.compile(r"\.bm\.weight$")),
)

_UNET_PREFIX = re.compile(
    r"^(?:lora_unet_|lycoris_(?:unet_)?"
    r"|(?:base_model\.model\.)?(?:unet\.){0,2}(?:base_model\.model\.)?(?:model\.)?(?:diffusion_model\.)?)"
)
_WRAPPER = re.compile(r"(?<![^._])_orig_mod[._]")  # torch.compile puts it before every name
_TEXT_ROOTS = tuple(
    (re.compile(rf"^(?:{spellings})"), encoder)
    for spellings, encoder in (
        (r"lora_te2_|lycoris_text_encoder_2_|(?:base_model\.model\.)?text_encoder_2\.", "te2"),
        (r"(?:text_encoders\.)?clip_g\.(?:transformer\.)?|te2\.", "te2"),
        (r"lora_te1?_|lycoris_text_encoder_|(?:base_model\.model\.)?text_encoder\.", "te1"),
        (r"(?:text_encoders\.)?clip_l\.(?:transformer\.)?|te1\.", "te1"),
    )
)
_TEXT_LAYER = re.compile(
    r"^(?:base_model[._]model[._])?(?:text_model[._])?encoder[._]layers[._](\d+)[._]"
    r"(self_attn[._](?:q|k|v|out)_proj|mlp[._]fc[12]|layer_norm[12])$"
)
_TEXT_OUTER = re.compile(
    r"^(?:base_model[._]model[._])?(?:text_model[._])?"
    r"(?:(embeddings)[._](token_embedding|position_embedding)|(final_layer_norm))$"
)
_BUNDLED = re.compile(r"^bundle_emb\.(.+?)\.(?:string_to_param\..*|clip_[lg]|emb_params)$")
_CLIP = {"te1": "clip_l", "te2": "clip_g"}


def uncompiled(key: str) -> str:
    """The key without what torch.compile puts before every name of a compiled model."""
    return _WRAPPER.sub("", key)


def bundled_embedding(key: str) -> str | None:
    """The trigger word of a textual inversion that OneTrainer or A1111 keeps in the LoRA's file, else None."""
    match = _BUNDLED.match(key)
    return match[1] if match else None


def split_key(key: str) -> tuple[str, str] | None:
    """(layer with its prefix, part) of a key of any adapter that is read; None for anything else."""
    for part, pattern in _PARTS:
        match = pattern.search(key)
        if match:
            return key[: match.start()], part
    return None


def foreign_kind(key: str) -> tuple[str, str] | None:
    """(layer with its prefix, kind of adapter) if the key belongs to an adapter that is not read."""
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
    """The name of a text-encoder layer by which ComfyUI finds it, or None.

    `lora_te1_text_model_encoder_layers_0_mlp_fc1` where kohya's trainer has a name for it, else ComfyUI's own,
    `text_encoders.clip_l.transformer.text_model.embeddings.token_embedding`.
    """
    for root, encoder in _TEXT_ROOTS:
        match = root.match(prefixed)
        if match is None:
            continue
        bare = prefixed[match.end() :]
        if bare in ("text_projection", "text_model_text_projection"):
            return f"lora_{encoder}_text_projection"
        layer, outer = _TEXT_LAYER.match(bare), _TEXT_OUTER.match(bare)
        own = f"text_encoders.{_CLIP[encoder]}.transformer.text_model"
        if layer and layer[2].startswith("layer_norm"):
            return f"{own}.encoder.layers.{layer[1]}.{layer[2]}"
        if layer:
            return f"lora_{encoder}_text_model_encoder_layers_{layer[1]}_{layer[2].replace('.', '_')}"
        if outer:
            return f"{own}.{'.'.join(filter(None, outer.groups()))}"
    return None
