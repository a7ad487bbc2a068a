"""Random LoRA files for the tiny checkpoint.

    layers = attention_linears(load_layers(checkpoint.with_suffix(".layers.json")))
    make_lora(path, layers, rank=4)

The tiny checkpoint's weights are random with a standard deviation of 1/sqrt(fan in), so the spectral norm of a layer is
1 + sqrt(out / in) to within a few per cent, and a LoRA of a given relative strength can be made from shapes alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
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
    *,
    diffusers: bool = False,
    rank: int = 4,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    te_layers: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Writes a random LoRA file in kohya's spelling, or in diffusers', which has no alpha.

    Every layer's delta, alpha / rank included, has 0.3 times the spectral norm of the tiny checkpoint's weight. The
    same seed gives the same deltas in both spellings and for every alpha.
    """
    down_name, up_name = (".lora_A.weight", ".lora_B.weight") if diffusers else (".lora_down.weight", ".lora_up.weight")
    named = {
        f"unet.{layer.diffusers}" if diffusers else f"lora_unet_{layer.ldm.replace('.', '_')}": layer.shape
        for layer in layers
    }
    named |= {f"lora_{name.replace('.', '_')}": shape for name, shape in (te_layers or {}).items()}
    strength = 1.0 if alpha is None else alpha / rank
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in named.items():
        weight_norm = 1 + math.sqrt(shape[0] / math.prod(shape[1:]))
        down, up = random_factors(shape, rank, 0.3 * weight_norm / strength, generator)
        tensors[key + down_name] = down.to(dtype).contiguous()
        tensors[key + up_name] = up.to(dtype).contiguous()
        if alpha is not None:
            tensors[key + ".alpha"] = torch.tensor(float(alpha), dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
