"""Sampling pictures from the world's model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.word_sampling import Denoise, sample_latents

from .model import CHANNELS, SIDE, Prompt, decode_latent

CHUNK = 32
"""Pictures that are sampled together."""


def sample(
    denoise: Denoise, prompts: Sequence[Prompt], generator: torch.Generator, steps: int = 20, cfg: float = 3.0
) -> Tensor:
    """(len(prompts), 3, 64, 64) pictures in [-1, 1]; see `sample_latents`."""
    noise = torch.randn(len(prompts), CHANNELS, SIDE, SIDE, generator=generator)
    return decode_latent(sample_latents(denoise, prompts, noise, steps, cfg, empty=Prompt()))


def paint(denoise: Denoise, prompts: Sequence[Prompt], seed: int, steps: int = 20, cfg: float = 3.0) -> Tensor:
    """(len(prompts), 3, 64, 64); a picture depends on the seed, its place and its prompt alone."""
    generator = torch.Generator().manual_seed(seed)
    chunks = [prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK)]
    return torch.cat([sample(denoise, chunk, generator, steps, cfg) for chunk in chunks])
