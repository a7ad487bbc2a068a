"""Training latents: the artist's pictures through the VAE, or samples of base + LoRA where there are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.utils
import torch
from einops import rearrange
from torch import Tensor

from .models import apply_lora

GRID = 64
"""Pictures are resized to multiples of this many pixels, as SDXL was trained."""


@dataclass(frozen=True)
class SampledImages:
    """How training latents are sampled when a LoRA comes without pictures."""

    count: int = 4
    steps: int = 20
    cfg: float = 6.0
    negative_prompt: str = ""


def encode_pictures(patcher: Any, vae: Any, pictures: Tensor, resolution: int) -> list[Tensor]:
    """(channels, h, w) latents, as the UNet sees them, of an IMAGE batch (count, h, w, 3).

    Each picture is scaled to about resolution² pixels, keeping its proportions up to the multiple of 64.
    """
    count, height, width = pictures.shape[:3]
    scale = resolution / math.sqrt(height * width)
    new_height, new_width = (max(GRID, round(side * scale / GRID) * GRID) for side in (height, width))
    latents: list[Tensor] = []
    for i in range(count):
        pixels = rearrange(pictures[i : i + 1, :, :, :3], "n h w c -> n c h w")
        pixels = comfy.utils.common_upscale(pixels, new_width, new_height, "bicubic", "center").clamp(0, 1)
        latents.append(_as_seen(patcher, vae.encode(rearrange(pixels, "n c h w -> n h w c")))[0])
    return latents


def sample_latents(
    patcher: Any,
    state: Mapping[str, Tensor],
    positive: list[Any],
    negative: list[Any],
    resolution: int,
    how: SampledImages,
    seed: int,
) -> list[Tensor]:
    """Latents that base + LoRA generates for the LoRA's own prompt: (channels, h, w), as the UNet sees them.

    Args:
        state: the LoRA alone as a LoRA state dict
        positive, negative: CONDITIONING
    """
    with_lora, _ = apply_lora(patcher, None, state)
    latents: list[Tensor] = []
    bar: Any = comfy.utils.ProgressBar(how.count * how.steps)
    for i in range(how.count):
        own_seed = (seed + i) % 2**64
        noise = starting_noise(patcher, resolution, own_seed)[None]
        latent = comfy.sample.sample(
            with_lora,
            noise,
            how.steps,
            how.cfg,
            "euler",
            "normal",
            positive,
            negative,
            torch.zeros_like(noise),
            seed=own_seed,
            disable_pbar=True,
            callback=lambda *_: bar.update(1),
        )
        latents.append(_as_seen(patcher, latent)[0])
    return latents


def starting_noise(patcher: Any, resolution: int, seed: int) -> Tensor:
    """(channels, side, side) normal noise for a square picture of about `resolution` pixels a side."""
    channels = patcher.get_model_object("latent_format").latent_channels
    side = max(1, resolution // GRID) * GRID // 8
    return torch.randn(channels, side, side, generator=torch.Generator().manual_seed(seed))


def _as_seen(patcher: Any, latent: Tensor) -> Tensor:
    """(batch, channels, h, w) scaled by the latent format, float32, and a tensor of its own outside inference mode."""
    scaled = patcher.model.process_latent_in(latent.to(torch.float32))
    with torch.inference_mode(False):
        return scaled.detach().clone()
