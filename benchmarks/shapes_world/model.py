"""The world's diffusion model: an SDXL-family UNet on 16 x 16 x 12 latents, with a two-word text encoder.

A picture is a latent by space-to-depth, so there is no autoencoder to train. A prompt is a content word and a style
word, either of which may be missing; each word is one token, and their mean is the pooled embedding. Sizes are those
that a host gives for 128 x 128 pixels (8 per latent position), so a host's own SDXL class runs the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.ldm_unet import UNet, UNetConfig, layer_shapes, timestep_embedding
from duolora_core import UNetLayout, layout_from_shapes
from duolora_core.model.denoiser import Prediction

from .names import CONTENTS, STYLES

WIDTH = 64
"""Of a word's embedding."""

CONFIG = UNetConfig(
    channels=64,
    multipliers=(1, 1, 1),
    down_depths=((0, 0), (1, 1), (2, 2)),
    mid_depth=1,
    up_depths=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    context=WIDTH,
    pooled=WIDTH + 6 * 256,
    head=32,
    in_channels=12,
)
LATENT_SCALE = 1.6
"""Brings latents to about unit deviation, as SDXL's are."""

WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Prompt:
    """A content and a style by their place in the tables of names; None for a word that is not there."""

    content: int | None = None
    style: int | None = None


def encode_picture(pictures: Tensor) -> Tensor:
    """(batch, 3, 32, 32) in [-1, 1] → (batch, 12, 16, 16)."""
    return F.pixel_unshuffle(pictures, 2) * LATENT_SCALE


def decode_latent(latents: Tensor) -> Tensor:
    """(batch, 12, 16, 16) → (batch, 3, 32, 32) in [-1, 1]."""
    return F.pixel_shuffle(latents / LATENT_SCALE, 2).clamp(-1, 1)


class TextEncoder(nn.Module):
    """One embedding per word, and one for a missing word of each kind. Novel words keep their random embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(CONTENTS) + len(STYLES) + 2, WIDTH)

    def forward(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """(batch, 2, width) states and (batch, width) pooled."""
        missing = len(CONTENTS) + len(STYLES)
        tokens = [
            (
                missing if prompt.content is None else prompt.content,
                missing + 1 if prompt.style is None else len(CONTENTS) + prompt.style,
            )
            for prompt in prompts
        ]
        states = self.words(torch.tensor(tokens))  # (batch, 2, width)
        return states, states.mean(dim=1)


def size_embedding() -> Tensor:
    """(1536,), what an SDXL host adds to the pooled text for an uncropped picture of 128 x 128."""
    side = 128.0
    return timestep_embedding(torch.tensor([side, side, 0.0, 0.0, side, side]), 256).flatten()


def noise_levels() -> Tensor:
    """(1000,) SDXL's sigmas, ascending."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    return ((1 - alphas) / alphas).sqrt().float()


class ShapesModel(nn.Module):
    """UNet and text encoder, predicting v (arXiv 2202.00512): trained far sooner than eps on these latents."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(CONFIG)
        self.text = TextEncoder()
        self.sigmas = noise_levels()
        self.sizes = size_embedding()

    @property
    def layout(self) -> UNetLayout:
        return layout_from_shapes(layer_shapes(self.unet))

    @property
    def live_modules(self) -> Mapping[str, nn.Module]:
        return dict(self.unet.named_modules())

    def output(self, x: Tensor, sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The network's v for x = x0 + sigma · noise, (batch, 12, 16, 16); sigma is (batch,)."""
        states, pooled = self.text(prompts)
        y = torch.cat([pooled, self.sizes.expand(len(prompts), -1)], dim=1)
        scaled = x / (1 + sigma.square()).sqrt().view(-1, 1, 1, 1)
        timesteps = (self.sigmas.log()[None] - sigma.log()[:, None]).abs().argmin(dim=1)
        return self.unet(scaled, timesteps, states, y)

    def forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Prompt]) -> Tensor:
        """The estimate of x0."""
        sigma_ = sigma.view(-1, 1, 1, 1)
        return x / (1 + sigma_**2) - self.output(x, sigma, conditions) * sigma_ / (1 + sigma_**2).sqrt()

    def loss(self, latents: Tensor, sigma: Tensor, noise: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """MSE of v = (noise - sigma · x0) / √(1 + sigma²), ()."""
        sigma_ = sigma.view(-1, 1, 1, 1)
        v = (noise - sigma_ * latents) / (1 + sigma_**2).sqrt()
        return F.mse_loss(self.output(latents + sigma_ * noise, sigma, prompts), v)


class ShapesDenoiser:
    """The model as the engine's Denoiser, with a Prompt as condition."""

    prediction: Prediction = "v"

    def __init__(self, model: ShapesModel):
        self._model = model
        self.layout = model.layout
        self.modules = model.live_modules
        self.sigmas = model.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Prompt]) -> Tensor:
        """(batch, 12, 16, 16) estimates of x0."""
        return self._model(x, sigma, conditions)


def save_model(model: ShapesModel, path: Path) -> None:
    """Writes all weights as float16."""
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)


def load_model(path: Path = WEIGHTS / "base.safetensors") -> ShapesModel:
    """The pre-trained model, frozen, in float32.

    Raises:
        FileNotFoundError: there are no weights yet; says how to make them.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.shapes_world.pretrain")
    model = ShapesModel()
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return model.eval().requires_grad_(False)
