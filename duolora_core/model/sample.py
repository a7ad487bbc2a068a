"""A picture from an attached model as it is now, to look at while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .branches import Branch
from .denoiser import Denoiser
from .evaluate import Networks, Sample, evaluate


@dataclass(frozen=True)
class Guidance:
    """Two prompts and how far to go from one to the other; with cfg 1 the negative one is not evaluated.

    Attributes:
        positive, negative: conditions as the denoiser takes them
    """

    positive: Any
    negative: Any
    cfg: float


def sample(
    denoiser: Denoiser, networks: Networks, branch: Branch, guidance: Guidance, noise: Tensor, steps: int
) -> Tensor:
    """The latent that one network of an attached model paints from `noise`, both (channels, h, w): Euler's method.

    Draws no random number and makes no gradient. One sample goes through the model at a time, so that it needs less
    memory than a training step.
    """
    with torch.no_grad():
        sigmas = schedule(denoiser.sigmas, steps)
        x = noise.to(sigmas) * (1 + sigmas[0].square()).sqrt()
        for sigma, following in pairwise(sigmas):
            x0 = _guided(denoiser, networks, branch, guidance, x, sigma)
            x = x0 + (x - x0) * (following / sigma)  # x + (following - sigma) · (x - x0) / sigma
        return x


def schedule(sigmas: Tensor, steps: int) -> Tensor:
    """`steps` noise levels at equal distances in time, from the highest to the lowest, and 0; (steps + 1,)."""
    places = torch.linspace(len(sigmas) - 1, 0, steps, device=sigmas.device).round().long()
    return torch.cat([sigmas[places], sigmas.new_zeros(1)])


def _guided(
    denoiser: Denoiser, networks: Networks, branch: Branch, guidance: Guidance, x: Tensor, sigma: Tensor
) -> Tensor:
    """x0 of the positive prompt, moved away from the negative one's (classifier-free guidance, arXiv 2207.12598)."""
    conditions = [guidance.positive] if guidance.cfg == 1 else [guidance.positive, guidance.negative]
    samples = [Sample(branch, x, condition) for condition in conditions]
    estimates = evaluate(denoiser, networks, samples, sigma, micro_batch=1)
    return estimates[-1] + guidance.cfg * (estimates[0] - estimates[-1]) if len(estimates) > 1 else estimates[0]
