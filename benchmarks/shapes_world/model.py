"""The world's diffusion model: an SDXL-family UNet on 16 x 16 x 12 latents, with a two-word text encoder.

A picture is a latent by space-to-depth, so there is no autoencoder to train. A prompt is a content word and a style
word, either of which may be missing; each word is one token, and their mean is the pooled embedding. Sizes are those
that a host gives for 128 x 128 pixels (8 per latent position), so a host's own SDXL class runs the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.ldm_unet import UNetConfig
from benchmarks.word_model import WordDenoiser, WordEncoder, WordModel, load_weights, to_latent, to_picture

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
WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Prompt:
    """A content and a style by their place in the tables of names; None for a word that is not there."""

    content: int | None = None
    style: int | None = None


def encode_picture(pictures: Tensor) -> Tensor:
    """(batch, 3, 32, 32) in [-1, 1] → (batch, 12, 16, 16)."""
    return to_latent(pictures, patch=2)


def decode_latent(latents: Tensor) -> Tensor:
    """(batch, 12, 16, 16) → (batch, 3, 32, 32) in [-1, 1]."""
    return to_picture(latents, patch=2)


class ShapesModel(WordModel):
    """The world's UNet and text encoder, predicting v: trained far sooner than eps on these latents."""

    def __init__(self) -> None:
        super().__init__(CONFIG, WordEncoder((len(CONTENTS), len(STYLES)), WIDTH))


ShapesDenoiser = WordDenoiser
"""The model as the engine's Denoiser, with a Prompt as condition."""


def load_model(path: Path = WEIGHTS / "base.safetensors") -> ShapesModel:
    """The pre-trained model; see `load_weights`."""
    return load_weights(ShapesModel(), path, "benchmarks.shapes_world.pretrain")
