"""The committed file of pictures: indexed colours and alpha of every drawing, and how one stands on a background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .names import BACKGROUNDS, CONTENTS, STYLES

SIZE = 64
COLORS = 40
"""Of one drawing."""
PATH = Path(__file__).with_name("pictures.npz")
OWN_GROUND = -1
"""The background of a picture whose style has a ground of its own."""


@dataclass(frozen=True)
class Drawings:
    """Drawings in the order of their keys.

    Attributes:
        keys: "<style or set>/<subject>"
        colors: (n, SIDE, SIDE) rows of the drawing's palette
        palettes: (n, COLORS, 3) in 0 to 255
        alphas: (n, SIDE, SIDE) in 0 to 15
    """

    keys: tuple[str, ...]
    colors: Tensor
    palettes: Tensor
    alphas: Tensor

    def rgba(self, place: int) -> Tensor:
        """(4, SIZE, SIZE), RGB (not premultiplied) and alpha in [0, 1]."""
        color = self.palettes[place].float()[self.colors[place].long()].movedim(-1, 0) / 255
        return torch.cat([color, self.alphas[place][None].float() / 15])


def indexed(drawing: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours, palette and alpha, as `Drawings` has them, of a (4, SIZE, SIZE) premultiplied drawing in [0, 1]."""
    alpha = (drawing[3] * 15).round()
    color = (drawing[:3] / drawing[3:].clamp(min=1 / 30)).clamp(0, 1) * (alpha > 0)
    pixels = (color.movedim(0, -1) * 255).round().byte().numpy()
    image = Image.fromarray(pixels).quantize(COLORS, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    palette = np.zeros((COLORS, 3), np.uint8)
    used = np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)[:COLORS]
    palette[: len(used)] = used
    return np.array(image, np.uint8), palette, alpha.byte().numpy()


@cache
def drawings(path: Path = PATH) -> Drawings:
    """What the file holds.

    Raises:
        FileNotFoundError: it is not there; says how to make it
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.art_world.draw")
    with np.load(path) as file:
        keys = tuple(str(key) for key in file["keys"])
        return Drawings(keys, *(torch.from_numpy(file[name]) for name in ("colors", "palettes", "alphas")))


@cache
def named() -> Tensor:
    """(contents, styles, 4, SIZE, SIZE) in 0 to 255: every subject in every style."""
    held = drawings()
    places = {key: place for place, key in enumerate(held.keys)}
    rows = [
        torch.stack([held.rgba(places[f"{style.looks}/{content.looks}"]) for style in STYLES]) for content in CONTENTS
    ]
    return (torch.stack(rows) * 255).round().byte()


@cache
def has_ground() -> Tensor:
    """(styles,) whether a style's drawings fill the picture, so that no background shows."""
    return named()[:, :, 3].flatten(2).amin(2).amin(0) == 255


def background_table() -> Tensor:
    """(backgrounds, 3) in [0, 1]."""
    return torch.tensor(list(BACKGROUNDS.values())) / 255


def compose(rgba: Tensor, ground: Tensor) -> Tensor:
    """(n, 3, SIZE, SIZE) in [-1, 1] of drawings (n, 4, SIZE, SIZE) in [0, 1] on colours (n, 3) in [0, 1]."""
    alpha = rgba[:, 3:]
    return (rgba[:, :3] * alpha + ground[:, :, None, None] * (1 - alpha)) * 2 - 1


def true_pictures(contents: Tensor, styles: Tensor, backgrounds: Tensor) -> Tensor:
    """(n, 3, SIZE, SIZE) in [-1, 1], the real drawings; a background does not matter where the style has its own."""
    return compose(named()[contents, styles].float() / 255, background_table()[backgrounds.clamp(min=0)])


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """A contact sheet of pictures (n, 3, h, w) in [-1, 1], row by row."""
    rows = [torch.cat(list(row), dim=2) for row in pictures.split(columns)]
    whole = torch.cat([_widened(row, rows[0].shape[2]) for row in rows], dim=1)
    return Image.fromarray(((whole.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).numpy())


def _widened(row: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(row, (0, width - row.shape[2]), value=1.0)


def places_of(styles: Sequence[str], subjects: Sequence[str]) -> list[int]:
    """Where the drawings of these sets or styles and subjects stand."""
    places = {key: place for place, key in enumerate(drawings().keys)}
    return [places[f"{style}/{subject}"] for style in styles for subject in subjects]
