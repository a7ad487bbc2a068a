"""Sampling from a word model: Euler steps with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.word_model import noise_levels
from duolora_core.model.sample import schedule

Denoise = Callable[[Tensor, Tensor, Sequence[Any]], Tensor]
"""x0 from x, (batch,) sigma and prompts."""


@torch.no_grad()
def sample_latents(
    denoise: Denoise, prompts: Sequence[Any], noise: Tensor, steps: int, cfg: float, empty: Any
) -> Tensor:
    """(len(prompts), channels, h, w) from noise of unit deviation; the guided x0 of the last step.

    Args:
        denoise: called with 2 · len(prompts) samples, the prompted ones first
        empty: the prompt that guidance leads away from
    """
    sigmas = schedule(noise_levels(), steps)
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    both = [*prompts, *[empty] * len(prompts)]
    for sigma, below in pairwise(sigmas):
        with_prompt, without = denoise(torch.cat([x, x]), sigma.expand(len(both)), both).chunk(2)
        x0 = without + cfg * (with_prompt - without)
        x = x0 + (x - x0) * (below / sigma)
    return x
