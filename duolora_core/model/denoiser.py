"""What training needs of a diffusion model, in the sigma parametrisation: x = x0 + sigma · noise.

The paper's latents are √ā x0 + √(1-ā) n; with sigma = √((1-ā)/ā) they are x / √(1+sigma²), which the model's wrapper
applies itself. In this form the one-step estimate of x0 needs no division by √ā, and re-noising is one addition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from .layout import UNetLayout

Prediction = Literal["eps", "v"]


class Denoiser(Protocol):
    """A frozen diffusion model, called on batches whose samples may differ in sigma and conditioning.

    Attributes:
        layout: its UNet's layers
        modules: {canonical layer: module}
        sigmas: (timesteps,) the noise levels it was trained on, ascending, on its device
        prediction: what the network puts out; the losses are measured in that quantity
    """

    layout: UNetLayout
    modules: Mapping[str, nn.Module]
    sigmas: Tensor
    prediction: Prediction

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        """The estimate of x0, (batch, channels, h, w) in float32.

        Args:
            x: (batch, channels, h, w) float32
            sigma: (batch,)
            conditions: one per sample, as the caller made them
        """
        ...


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x0 + sigma · noise; sigma has shape () or (batch,)."""
    return x0 + sigma.view(-1, *[1] * (x0.ndim - 1)) * noise if sigma.ndim else x0 + sigma * noise


def model_output(x: Tensor, denoised: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """What the network itself put out, eps or v, from its input x and its estimate of x0; all (…, channels, h, w).

    eps = (x - x0) / sigma and v = (x / (1+sigma²) - x0) · √(1+sigma²) / sigma. The latter stays well conditioned up to
    zero terminal SNR, where sigma is in the thousands.
    """
    if prediction == "eps":
        return (x - denoised) / sigma
    scale = (1 + sigma.square()).sqrt()
    return (x / scale.square() - denoised) * scale / sigma


def training_target(x0: Tensor, noise: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """What the network should put out for x0 + sigma · noise: eps = noise, or v = (noise - sigma · x0) / √(1+sigma²).

    Both finite at zero terminal SNR, where v is nearly -x0. All (…, channels, h, w), or sigma broadcastable to it.
    """
    return noise if prediction == "eps" else (noise - sigma * x0) / (1 + sigma.square()).sqrt()
