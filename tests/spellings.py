"""How each trainer spells a LoRA: {layer: Factors} to the state dict that it would write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from factors import Factors
from tiny import ATTENTION, layout


@dataclass(frozen=True)
class Format:
    """How a trainer spells a layer of the UNet and of the text encoders, and the parts of its adapter."""

    unet: Callable[[str], str]
    text: Callable[[str], str] | None
    up: str
    down: str
    mid: str | None = None
    alpha: str | None = None
    only: str = ""  # a pattern of the layers that the format can name


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _diffusers(name: str) -> str:
    return layout().layers[name].diffusers


def _text(one: str, two: str) -> Callable[[str], str]:
    return lambda name: name.replace("te1.", one).replace("te2.", two)


def _kohya_text(name: str) -> str:
    return f"lora_{_flat(name)}"


def _lycoris_text(name: str) -> str:
    return "lycoris_" + _flat(_text("text_encoder.", "text_encoder_2.")(name))


_KOHYA = {"up": ".lora_up.weight", "down": ".lora_down.weight", "mid": ".lora_mid.weight", "alpha": ".alpha"}

FORMATS: dict[str, Format] = {
    "kohya_ldm": Format(lambda n: f"lora_unet_{_flat(n)}", _kohya_text, **_KOHYA),
    "kohya_diffusers": Format(lambda n: f"lora_unet_{_flat(_diffusers(n))}", _kohya_text, **_KOHYA),
    "diffusers": Format(
        lambda n: f"unet.{_diffusers(n)}",
        _text("text_encoder.", "text_encoder_2."),
        ".lora_B.weight",
        ".lora_A.weight",
        alpha=".alpha",
    ),
    "diffusers_old": Format(lambda n: f"unet.unet.{_diffusers(n)}", None, ".lora.up.weight", ".lora.down.weight"),
    "processor": Format(
        lambda n: "unet." + re.sub(r"\.(to_q|to_k|to_v|to_out)(\.0)?$", r".processor.\1", _diffusers(n)),
        None,
        "_lora.up.weight",
        "_lora.down.weight",
        only=ATTENTION,
    ),
    "peft": Format(
        lambda n: f"base_model.model.{_diffusers(n)}",
        _text("base_model.model.text_encoder.", "base_model.model.text_encoder_2."),
        ".lora_B.default.weight",
        ".lora_A.default.weight",
        alpha=".alpha",
    ),
    "lycoris": Format(lambda n: f"lycoris_{_flat(_diffusers(n))}", _lycoris_text, **_KOHYA),
    "comfy": Format(
        lambda n: f"diffusion_model.{n}",
        _text("text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."),
        **_KOHYA,
    ),
}


def spell(
    factors: Mapping[str, Factors],
    form: Format = FORMATS["kohya_ldm"],
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The state dict of a file in one format; with `alpha` the factors are divided by alpha / rank, so ΔW stays."""
    tensors: dict[str, Tensor] = {}
    for name, layer in factors.items():
        if name.startswith(("te1.", "te2.")):
            assert form.text is not None
            key = form.text(name)
        else:
            key = form.unet(name)
        tensors[key + form.up] = (layer.up / (1 if alpha is None else alpha / layer.rank)).to(dtype)
        tensors[key + form.down] = layer.down.to(dtype, copy=True)
        if layer.mid is not None:
            assert form.mid is not None
            tensors[key + form.mid] = layer.mid.to(dtype)
        if alpha is not None:
            assert form.alpha is not None
            tensors[key + form.alpha] = torch.tensor(alpha)
    return tensors
