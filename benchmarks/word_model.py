"""A small text-to-image model of the SDXL family: a UNet, and one embedding for each word of a prompt.

The worlds of the benchmarks share it; they differ in sizes, words and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.ldm_unet import UNet, UNetConfig, layer_shapes, timestep_embedding
from duolora_core import UNetLayout, layout_from_shapes
from duolora_core.model.denoiser import Prediction


def size_embedding() -> Tensor:
    """(1536,), what an SDXL host adds to the pooled text for an uncropped picture of 128 x 128."""
    side = 128.0
    return timestep_embedding(torch.tensor([side, side, 0.0, 0.0, side, side]), 256).flatten()


def noise_levels() -> Tensor:
    """(1000,) SDXL's sigmas, ascending."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    return ((1 - alphas) / alphas).sqrt().float()


LATENT_SCALE = 1.6
"""Brings latents to about unit deviation, as SDXL's are."""


def to_latent(pictures: Tensor, patch: int) -> Tensor:
    """(batch, 3, h, w) in [-1, 1] → (batch, 3 · patch², h / patch, w / patch): space to depth."""
    return F.pixel_unshuffle(pictures, patch) * LATENT_SCALE


def to_picture(latents: Tensor, patch: int) -> Tensor:
    """Back again, within [-1, 1]."""
    return F.pixel_shuffle(latents / LATENT_SCALE, patch).clamp(-1, 1)


class WordEncoder(nn.Module):
    """One embedding per word, and one for a missing word of each kind, which stand last.

    Args:
        counts: words of each kind
    """

    def __init__(self, counts: Sequence[int], width: int) -> None:
        super().__init__()
        self.first = [sum(counts[:kind]) for kind in range(len(counts))]
        self.missing = sum(counts)
        self.words = nn.Embedding(self.missing + len(counts), width)

    def forward(self, prompts: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """(batch, kinds, width) states and (batch, width) pooled, of dataclasses with a word or None for each kind."""
        rows = [
            [self.missing + kind if word is None else self.first[kind] + word for kind, word in enumerate(words)]
            for words in (vars(prompt).values() for prompt in prompts)
        ]
        states = self.words(torch.tensor(rows, device=self.words.weight.device))
        return states, states.mean(dim=1)


Predicts = Literal["v", "x0"]
"""What a UNet puts out: v (arXiv 2202.00512), or the picture itself."""


class WordModel(nn.Module):
    """UNet and text encoder.

    Args:
        emphasis: the loss weighs no noise level by a signal-to-noise ratio above this
    """

    sigmas: Tensor
    sizes: Tensor

    def __init__(
        self, config: UNetConfig, text: WordEncoder, predicts: Predicts = "v", emphasis: float = math.inf
    ) -> None:
        super().__init__()
        self.predicts: Predicts = predicts
        self.emphasis = emphasis
        self.unet = UNet(config)
        self.text = text
        self.register_buffer("sigmas", noise_levels(), persistent=False)
        self.register_buffer("sizes", size_embedding(), persistent=False)

    @property
    def layout(self) -> UNetLayout:
        return layout_from_shapes(layer_shapes(self.unet))

    @property
    def live_modules(self) -> Mapping[str, nn.Module]:
        return dict(self.unet.named_modules())

    def output(self, x: Tensor, sigma: Tensor, prompts: Sequence[Any]) -> Tensor:
        """What the network puts out for x = x0 + sigma · noise, (batch, channels, h, w); sigma is (batch,)."""
        states, pooled = self.text(prompts)
        y = torch.cat([pooled, self.sizes.expand(len(prompts), -1)], dim=1)
        scaled = x / (1 + sigma.square()).sqrt().view(-1, 1, 1, 1)
        timesteps = (self.sigmas.log()[None] - sigma.log()[:, None]).abs().argmin(dim=1)
        return self.unet(scaled, timesteps, states, y)

    def forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        """The estimate of x0."""
        output, sigma_ = self.output(x, sigma, conditions), sigma.view(-1, 1, 1, 1)
        return output if self.predicts == "x0" else x / (1 + sigma_**2) - output * sigma_ / (1 + sigma_**2).sqrt()

    def loss(self, latents: Tensor, sigma: Tensor, noise: Tensor, prompts: Sequence[Any]) -> Tensor:
        """Mean of (1 + min(1 / sigma², emphasis)) · (estimate - x0)², ().

        Without a limit that is the MSE of v = (noise - sigma · x0) / √(1 + sigma²).
        """
        sigma_ = sigma.view(-1, 1, 1, 1)
        x = latents + sigma_ * noise
        if self.predicts == "v" and self.emphasis == math.inf:
            v = (noise - sigma_ * latents) / (1 + sigma_**2).sqrt()
            return F.mse_loss(self.output(x, sigma, prompts), v)
        weight = 1 + sigma_.pow(-2).clamp(max=self.emphasis)
        return (weight * (self(x, sigma, prompts) - latents).square()).mean()


Model = TypeVar("Model", bound=WordModel)


def save_model(model: WordModel, path: Path) -> None:
    """Writes all weights as float16."""
    save_file({key: value.half().cpu().contiguous() for key, value in model.state_dict().items()}, path)


def load_weights(model: Model, path: Path, maker: str) -> Model:
    """The model with the weights of a file, frozen, in float32.

    Raises:
        FileNotFoundError: there are no weights yet; says which module makes them.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m {maker}")
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return model.eval().requires_grad_(False)


class WordDenoiser:
    """A model as the engine's Denoiser, with its prompts as conditions. Losses are in v, whatever it predicts."""

    prediction: Prediction = "v"

    def __init__(self, model: WordModel):
        self._model = model
        self.layout = model.layout
        self.modules = model.live_modules
        self.sigmas = model.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        """(batch, channels, h, w) estimates of x0."""
        return self._model(x, sigma, conditions)
