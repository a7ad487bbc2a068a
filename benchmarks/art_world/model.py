"""The art world's diffusion model: an SDXL-family UNet on 16 x 16 x 48 latents, with a three-word text encoder.

A picture of 64 x 64 is a latent by space-to-depth, so there is no autoencoder to train. A prompt is a subject, a style
and a background, any of which may be missing; each word is one token, and their mean is the pooled embedding. Sizes are
those that a host gives for 128 x 128 pixels (8 per latent position), so a host's own SDXL class runs the same weights.
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
from benchmarks.word_model import WordModel

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
LATENT_SCALE = 1.6
"""Brings latents to about unit deviation, as SDXL's are."""

WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Prompt:
    """A subject, a style and a background by their place in the tables of names; None for a word that is not there."""

    content: int | None = None
    style: int | None = None
    background: int | None = None


def encode_picture(pictures: Tensor) -> Tensor:
    """(batch, 3, 64, 64) in [-1, 1] → (batch, 48, 16, 16)."""
    return F.pixel_unshuffle(pictures, PATCH) * LATENT_SCALE


def decode_latent(latents: Tensor) -> Tensor:
    """(batch, 48, 16, 16) → (batch, 3, 64, 64) in [-1, 1]."""
    return F.pixel_shuffle(latents / LATENT_SCALE, PATCH).clamp(-1, 1)


class TextEncoder(nn.Module):
    """One embedding per word, and one for a missing word of each kind, which stand last."""

    first = (0, len(CONTENTS), len(CONTENTS) + len(STYLES))
    """Row of the first subject, style and background."""
    missing = first[2] + len(BACKGROUNDS)
    """Row of the missing subject; those of the missing style and background follow."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(self.missing + 3, WIDTH)

    def forward(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """(batch, 3, width) states and (batch, width) pooled."""
        rows = [
            [
                self.missing + kind if word is None else first + word
                for kind, (first, word) in enumerate(
                    zip(self.first, (prompt.content, prompt.style, prompt.background), strict=True)
                )
            ]
            for prompt in prompts
        ]
        states = self.words(torch.tensor(rows, device=self.words.weight.device))  # (batch, 3, width)
        return states, states.mean(dim=1)


class ArtModel(WordModel):
    """The world's UNet and text encoder. It predicts x0: v would ask it for the noise of all 48 channels as well."""

    text: TextEncoder

    def __init__(self) -> None:
        super().__init__(CONFIG, TextEncoder(), predicts="x0", emphasis=5.0)


def save_model(model: ArtModel, path: Path) -> None:
    """Writes all weights as float16."""
    save_file({key: value.half().cpu().contiguous() for key, value in model.state_dict().items()}, path)


def load_model(path: Path = WEIGHTS / "base.safetensors") -> ArtModel:
    """The pre-trained model, frozen, in float32.

    Raises:
        FileNotFoundError: there are no weights yet; says how to make them.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.art_world.pretrain")
    model = ArtModel()
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return model.eval().requires_grad_(False)
