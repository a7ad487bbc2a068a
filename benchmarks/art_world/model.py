"""The art world's diffusion model: an SDXL-family UNet on 16 x 16 x 48 latents, with a three-word text encoder.

A picture of 64 x 64 is a latent by space-to-depth, so there is no autoencoder to train. A prompt is a subject, a style
and a background, any of which may be missing; each word is one token, and their mean is the pooled embedding. Sizes are
those that a host gives for 128 x 128 pixels (8 per latent position), so a host's own SDXL class runs the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.ldm_unet import UNetConfig
from benchmarks.word_model import WordEncoder, WordModel, load_weights, to_latent, to_picture

from .names import BACKGROUNDS, CONTENTS, STYLES

WIDTH = 96
"""Of a word's embedding."""
PATCH = 4
CHANNELS, SIDE = 3 * PATCH**2, 16
"""Of a latent."""

CONFIG = UNetConfig(
    channels=96,
    multipliers=(1, 1, 1),
    down_depths=((0,), (2,), (2,)),
    mid_depth=2,
    up_depths=((0, 0), (2, 2), (2, 2)),
    context=WIDTH,
    pooled=WIDTH + 6 * 256,
    head=32,
    in_channels=CHANNELS,
)
WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Prompt:
    """A subject, a style and a background by their place in the tables of names; None for a word that is not there."""

    content: int | None = None
    style: int | None = None
    background: int | None = None


def encode_picture(pictures: Tensor) -> Tensor:
    """(batch, 3, 64, 64) in [-1, 1] → (batch, 48, 16, 16)."""
    return to_latent(pictures, PATCH)


def decode_latent(latents: Tensor) -> Tensor:
    """(batch, 48, 16, 16) → (batch, 3, 64, 64) in [-1, 1]."""
    return to_picture(latents, PATCH)


class ArtModel(WordModel):
    """The world's UNet and text encoder. It predicts x0: v would ask it for the noise of all 48 channels as well."""

    def __init__(self) -> None:
        words = WordEncoder((len(CONTENTS), len(STYLES), len(BACKGROUNDS)), WIDTH)
        super().__init__(CONFIG, words, predicts="x0", emphasis=5.0)


def load_model(path: Path = WEIGHTS / "base.safetensors") -> ArtModel:
    """The pre-trained model; see `load_weights`."""
    return load_weights(ArtModel(), path, "benchmarks.art_world.pretrain")
