"""Sampling pictures from the world's model: Euler steps with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.word_model import noise_levels
from duolora_core.model.sample import schedule

from .model import Prompt, decode_latent

Denoise = Callable[[Tensor, Tensor, Sequence[Prompt]], Tensor]


@torch.no_grad()
def sample(
    denoise: Denoise, prompts: Sequence[Prompt], generator: torch.Generator, steps: int = 20, cfg: float = 4.0
) -> Tensor:
    """(len(prompts), 3, 32, 32) pictures in [-1, 1].

    Args:
        denoise: x0 from x, (batch,) sigma and prompts; called with 2 · len(prompts) samples, the prompted ones first
    """
    sigmas = schedule(noise_levels(), steps)
    x = torch.randn(len(prompts), 12, 16, 16, generator=generator) * (1 + sigmas[0] ** 2).sqrt()
    both = [*prompts, *[Prompt()] * len(prompts)]
    for sigma, below in pairwise(sigmas):
        with_prompt, without = denoise(torch.cat([x, x]), sigma.expand(len(both)), both).chunk(2)
        x0 = without + cfg * (with_prompt - without)
        x = x0 + (x - x0) * (below / sigma)
    return decode_latent(x)
