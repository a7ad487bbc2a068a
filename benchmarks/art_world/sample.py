"""Sampling pictures from the world's model: Euler steps with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.word_model import noise_levels
from duolora_core.model.sample import schedule

from .model import CHANNELS, SIDE, Prompt, decode_latent

Denoise = Callable[[Tensor, Tensor, Sequence[Prompt]], Tensor]
CHUNK = 32
"""Pictures that are sampled together."""


@torch.no_grad()
def sample(
    denoise: Denoise, prompts: Sequence[Prompt], generator: torch.Generator, steps: int = 20, cfg: float = 3.0
) -> Tensor:
    """(len(prompts), 3, 64, 64) pictures in [-1, 1].

    Args:
        denoise: x0 from x, (batch,) sigma and prompts; called with 2 · len(prompts) samples, the prompted ones first
    """
    sigmas = schedule(noise_levels(), steps)
    x = torch.randn(len(prompts), CHANNELS, SIDE, SIDE, generator=generator) * (1 + sigmas[0] ** 2).sqrt()
    both = [*prompts, *[Prompt()] * len(prompts)]
    for sigma, below in pairwise(sigmas):
        with_prompt, without = denoise(torch.cat([x, x]), sigma.expand(len(both)), both).chunk(2)
        x0 = without + cfg * (with_prompt - without)
        x = x0 + (x - x0) * (below / sigma)
    return decode_latent(x)


def paint(denoise: Denoise, prompts: Sequence[Prompt], seed: int, steps: int = 20, cfg: float = 3.0) -> Tensor:
    """(len(prompts), 3, 64, 64); a picture depends on the seed, its place and its prompt alone."""
    generator = torch.Generator().manual_seed(seed)
    chunks = [prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK)]
    return torch.cat([sample(denoise, chunk, generator, steps, cfg) for chunk in chunks])
