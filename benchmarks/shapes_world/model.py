"""The world's diffusion model: an SDXL-family UNet on 16 x 16 x 12 latents, with a two-word text encoder.

A picture is a latent by space-to-depth, so there is no autoencoder to train. A prompt is a content word and a style
word, either of which may be missing; each word is one token, and their mean is the pooled embedding. Sizes are those
that a host gives for 128 x 128 pixels (8 per latent position), so a host's own SDXL class runs the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.ldm_unet import UNetConfig
from benchmarks.word_model import WordDenoiser, WordModel

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


class ShapesModel(WordModel):
    """The world's UNet and text encoder, predicting v: trained far sooner than eps on these latents."""

    text: TextEncoder

    def __init__(self) -> None:
        super().__init__(CONFIG, TextEncoder())


ShapesDenoiser = WordDenoiser
"""The model as the engine's Denoiser, with a Prompt as condition."""


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
