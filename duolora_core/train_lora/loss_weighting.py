"""How much each noise level counts, and how the learning rate runs: numbers in, numbers out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..model.denoiser import Prediction
from .config import Schedule


def snr_weight(sigma: Tensor, gamma: float | None, prediction: Prediction) -> Tensor:
    """The Min-SNR weight of a loss measured in eps or v (arXiv 2303.09556), in the shape of sigma; 1 for no gamma.

    SNR = 1/sigma². In x0 the weight is min(SNR, γ); an error of eps is √SNR times that of x0, one of v √(SNR + 1)
    times, so it is min(SNR, γ)/SNR for eps and min(SNR, γ)/(SNR + 1) for v. Written without SNR, which is 0 at zero
    terminal SNR: min(1, γ sigma²), and the same over 1 + sigma².
    """
    if gamma is None:
        return torch.ones_like(sigma)
    capped = (gamma * sigma.square()).clamp(max=1.0)
    return capped if prediction == "eps" else capped / (1 + sigma.square())


def rate_factor(step: int, steps: int, warmup: int, schedule: Schedule) -> float:
    """The factor on the learning rate in a step, counted from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return min(1.0, (steps - step) / (steps / 2)) if schedule == "linear" else 1.0
