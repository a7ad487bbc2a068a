"""Sampling pictures from the world's model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.word_sampling import Denoise, sample_latents

from .model import Prompt, decode_latent


def sample(
    denoise: Denoise, prompts: Sequence[Prompt], generator: torch.Generator, steps: int = 20, cfg: float = 4.0
) -> Tensor:
    """(len(prompts), 3, 32, 32) pictures in [-1, 1]; see `sample_latents`."""
    noise = torch.randn(len(prompts), 12, 16, 16, generator=generator)
    return decode_latent(sample_latents(denoise, prompts, noise, steps, cfg, empty=Prompt()))
