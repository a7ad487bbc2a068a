"""Random LoRA files in every key format that is found in the wild.

    layers = attention_linears(load_layers(checkpoint.with_suffix(".layers.json")))
    make_lora(path, layers, "kohya_ldm", rank=4)

The tiny checkpoint's weights are random with a standard deviation of 1/sqrt(fan in), so the spectral norm of a layer is
1 + sqrt(out / in) to within a few per cent, and a LoRA of a given relative strength can be made from shapes alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Layer:
    """A linear or convolution: its name in the LDM layout and in diffusers', and its weight's shape."""

    ldm: str
    diffusers: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Format:
    """How one key format spells a layer and the two factors; key is None where it has no name for that layer."""

    key: Callable[[Layer], str | None]
    down: str
    up: str
    alpha: bool
    text_key: Callable[[str], str] | None = None


def load_layers(path: Path) -> list[Layer]:
    """Read the layer table that lies beside a tiny checkpoint."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Layer(row["ldm"], row["diffusers"], tuple(row["shape"])) for row in rows]


def attention_linears(layers: Iterable[Layer]) -> list[Layer]:
    """The projections to_q, to_k, to_v and to_out of every attention: what most SDXL LoRAs train."""
    return [layer for layer in layers if re.search(r"\.attn[12]\.to_(q|k|v|out\.0)$", layer.ldm)]


def text_layers(depth: int = 3) -> dict[str, tuple[int, ...]]:
    """The attention projections of the tiny CLIP: `te1.…` (768 wide) and `te2.…` (1280 wide)."""
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    return {
        f"{encoder}.text_model.encoder.layers.{index}.self_attn.{projection}": (width, width)
        for encoder, width in (("te1", 768), ("te2", 1280))
        for index in range(depth)
        for projection in projections
    }


def _underscored(name: str) -> str:
    return name.replace(".", "_")


def _processor_key(layer: Layer) -> str | None:
    """`….attn1.to_out.0` becomes `unet.….attn1.processor.to_out_lora`; other layers have no such name."""
    name, found = re.subn(r"\.(to_q|to_k|to_v|to_out)(\.0)?$", r".processor.\1_lora", layer.diffusers)
    return f"unet.{name}" if found else None


def _kohya_text_key(name: str) -> str:
    return f"lora_{_underscored(name)}"


def _diffusers_text_key(name: str) -> str:
    return name.replace("te1.", "text_encoder.").replace("te2.", "text_encoder_2.")


FORMATS = {
    "kohya_ldm": Format(
        lambda layer: f"lora_unet_{_underscored(layer.ldm)}",
        ".lora_down.weight",
        ".lora_up.weight",
        True,
        _kohya_text_key,
    ),
    "kohya_diffusers": Format(
        lambda layer: f"lora_unet_{_underscored(layer.diffusers)}",
        ".lora_down.weight",
        ".lora_up.weight",
        True,
        _kohya_text_key,
    ),
    "diffusers": Format(
        lambda layer: f"unet.{layer.diffusers}", ".lora_A.weight", ".lora_B.weight", False, _diffusers_text_key
    ),
    "diffusers_old": Format(
        lambda layer: f"unet.unet.{layer.diffusers}", ".lora.down.weight", ".lora.up.weight", False
    ),
    "processor": Format(_processor_key, ".down.weight", ".up.weight", False),
    "peft": Format(
        lambda layer: f"base_model.model.{layer.diffusers}",
        ".lora_A.default.weight",
        ".lora_B.default.weight",
        False,
    ),
    "lycoris": Format(
        lambda layer: f"lycoris_{_underscored(layer.diffusers)}", ".lora_down.weight", ".lora_up.weight", True
    ),
    "generic": Format(lambda layer: f"diffusion_model.{layer.ldm}", ".lora_down.weight", ".lora_up.weight", True),
}


def random_factors(
    shape: tuple[int, ...], rank: int, norm: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random down (rank, in[, kh, kw]) and up (out, rank[, 1, 1]) whose product has this spectral norm."""
    down = torch.randn(rank, math.prod(shape[1:]), generator=generator)
    up = torch.randn(shape[0], rank, generator=generator)
    # up = Q_u R_u and down = R_d^T Q_d^T, so the small R_u R_d^T has the singular values of the product.
    product_norm = torch.linalg.matrix_norm(torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T, ord=2)
    gain = (norm / product_norm).sqrt()
    return (down * gain).reshape(rank, *shape[1:]), (up * gain).reshape(shape[0], rank, *(1 for _ in shape[2:]))


def make_lora(
    path: Path,
    layers: Iterable[Layer],
    fmt: str = "kohya_ldm",
    rank: int = 4,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    scale: float = 0.3,
    te_layers: dict[str, tuple[int, ...]] | None = None,
    metadata: dict[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Write a random LoRA file and return its tensors.

    Every layer's delta, alpha / rank included, has `scale` times the spectral norm of the tiny checkpoint's weight. The
    same seed gives the same deltas in every format (up to layers for which a format has no name) and for every alpha.

    Raises:
        ValueError: the format has no names for text encoder layers, or for none of the layers.
    """
    form = FORMATS[fmt]
    named = [(form.key(layer), layer.shape) for layer in layers]
    if te_layers:
        if form.text_key is None:
            raise ValueError(f"the format {fmt} has no names for text encoder layers")
        named += [(form.text_key(name), shape) for name, shape in te_layers.items()]
    if not any(key for key, _ in named):
        raise ValueError(f"the format {fmt} has no name for any of these layers")
    strength = alpha / rank if form.alpha and alpha is not None else 1.0
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in named:
        weight_norm = 1 + math.sqrt(shape[0] / math.prod(shape[1:]))
        down, up = random_factors(shape, rank, scale * weight_norm / strength, generator)
        if key is None:
            continue
        tensors[key + form.down] = down.to(dtype).contiguous()
        tensors[key + form.up] = up.to(dtype).contiguous()
        if form.alpha and alpha is not None:
            tensors[key + ".alpha"] = torch.tensor(float(alpha), dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return tensors
