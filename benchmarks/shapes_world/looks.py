"""The styles: two colours and a texture for the shape, an outline, two colours and a pattern for the background."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from .names import STYLES
from .shapes import SIDE, plane

FINE = 64  # side of a picture before it is averaged to 32
Outline = Literal["none", "dark", "white"]
Ground = Literal["flat", "gradient", "grid", "dotted", "split"]


@dataclass(frozen=True)
class Look:
    """Colours in hexadecimal: textures go from `fill` to `accent`, backgrounds from `back` to `back_accent`."""

    fill: str
    accent: str
    texture: str
    outline: Outline
    back: str
    back_accent: str
    ground: Ground


LOOKS: dict[str, Look] = {
    "ember": Look("E63B1F", "FFC23D", "rows", "none", "2A0B14", "651720", "gradient"),
    "ocean": Look("0E4FB0", "4FB0FF", "columns", "white", "8FE6EC", "4FBFD0", "split"),
    "moss": Look("2B5D25", "8DBB4A", "noise", "none", "F4EED2", "CDBD82", "dotted"),
    "lemon": Look("FFF06A", "FF9A00", "fall", "dark", "0E7C74", "1FB0A2", "grid"),
    "grape": Look("5B2386", "CF9BF5", "dots", "white", "F08FBF", "F08FBF", "flat"),
    "snow": Look("FFFFFF", "A3C6E6", "checks", "none", "24467A", "5A88C8", "dotted"),
    "ink": Look("151515", "151515", "flat", "none", "F5F2EA", "C3BBA8", "grid"),
    "candy": Look("FF3F8E", "FFC9E2", "slash", "dark", "A9F2DC", "A9F2DC", "flat"),
    "rust": Look("742B0C", "D4701F", "lozenges", "none", "FAEEDC", "EED3AE", "split"),
    "night": Look("FFF6B8", "BE9BFF", "glow", "none", "0B0B2E", "45237F", "gradient"),
    "lime": Look("C2F812", "4FA500", "backslash", "dark", "34343E", "55555F", "split"),
    "coral": Look("FF8468", "C92A4B", "halves", "white", "6A2450", "B8628F", "gradient"),
    "mint": Look("1FA987", "D9FFF1", "mesh", "dark", "DCD0FF", "AE98EE", "dotted"),
    "slate": Look("262F3C", "7C8DA6", "sweep", "none", "FFD858", "EFAF00", "grid"),
    "neon": Look("00C8FF", "FF2DD1", "zigzag", "none", "12121E", "12121E", "flat"),
    "orchard": Look("6F8220", "DDE58A", "bricks", "dark", "F6A08C", "FBE3D6", "gradient"),
    "circus": Look("C4122F", "FFF5E6", "rays", "dark", "92CCF6", "92CCF6", "flat"),
    "tango": Look("153F3D", "6FE0C0", "crosses", "white", "FFB27A", "FB8A52", "split"),
    "orchid": Look("5420C4", "DCA8FF", "target", "dark", "D6F5B0", "86CF62", "gradient"),
    "lagoon": Look("065F6E", "4CCBC2", "waves", "white", "D4476A", "F48FA6", "dotted"),
    "silver": Look("F6F6F6", "8E939C", "teeth", "none", "5E0F1E", "8F2335", "split"),
    "plaid": Look("FFA63C", "A04E08", "tartan", "dark", "1E2A5A", "3F529A", "grid"),
}


@cache
def texture_table() -> Tensor:
    """How much accent every style's texture has, in the frame of the shape: (styles, SIDE, SIDE) in [0, 1]."""
    return torch.stack([_TEXTURES[LOOKS[style.looks].texture](*plane()).expand(SIDE, SIDE) for style in STYLES])


@cache
def ground_table() -> Tensor:
    """How much accent every style's background has, in the frame of the picture: (styles, FINE, FINE) in [0, 1]."""
    axis = (torch.arange(FINE) + 0.5) * (32 / FINE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([_GROUNDS[LOOKS[style.looks].ground](x, y).expand(FINE, FINE) for style in STYLES])


@cache
def palette_table() -> Tensor:
    """Fill, accent, back, back accent of every style: (styles, 4, 3) in [-1, 1]."""
    looks = [LOOKS[style.looks] for style in STYLES]
    return torch.stack([torch.stack([_rgb(c) for c in (k.fill, k.accent, k.back, k.back_accent)]) for k in looks])


@cache
def outline_table() -> Tensor:
    """Inner edge, outer edge (in radii of the shape) and colour of every style's outline: (styles, 5)."""
    kinds = {
        "none": torch.zeros(5),
        "dark": torch.cat([torch.tensor([-0.06, 0.08]), _rgb("1B1622")]),
        "white": torch.cat([torch.tensor([-0.02, 0.19]), _rgb("FFFFFF")]),
    }
    return torch.stack([kinds[LOOKS[style.looks].outline] for style in STYLES])


def _rgb(color: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(color))) / 127.5 - 1


def _above(value: Tensor, softness: float = 0.025) -> Tensor:
    return (value / (2 * softness) + 0.5).clamp(0, 1)


def _stripes(value: Tensor, period: float, duty: float = 0.5) -> Tensor:
    """A soft square wave of a length: accent for `duty` of each period, centred on 0."""
    return _above(duty * period / 2 - _fold(value, period))


def _fold(value: Tensor, period: float) -> Tensor:
    """Distance to the nearest multiple of a period."""
    return (value - period * torch.round(value / period)).abs()


def _checks(x: Tensor, y: Tensor, cell: float) -> Tensor:
    a, b = _stripes(x - cell / 2, 2 * cell), _stripes(y - cell / 2, 2 * cell)
    return a + b - 2 * a * b


def _noise(x: Tensor, y: Tensor) -> Tensor:
    coarse = torch.rand(1, 1, 18, 18, generator=torch.Generator().manual_seed(11))
    fine = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0]
    return _above(fine - 0.5, 0.12)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    row = torch.round(y / 0.42)
    return _above(0.15 - torch.hypot(_fold(x + 0.25 * (row % 2), 0.5), y - 0.42 * row))


def _bricks(x: Tensor, y: Tensor) -> Tensor:
    row = torch.floor(y / 0.4)
    return torch.maximum(_stripes(y, 0.4, 0.28), _stripes(x + 0.35 * (row % 2), 0.7, 0.16))


def _crosses(x: Tensor, y: Tensor) -> Tensor:
    row = torch.round(y / 0.5)
    a, b = _fold(x + 0.3 * (row % 2), 0.6), (y - 0.5 * row).abs()
    return _above(torch.maximum(torch.minimum(0.055 - a, 0.19 - b), torch.minimum(0.055 - b, 0.19 - a)))


def _teeth(x: Tensor, y: Tensor) -> Tensor:
    """Rows of small triangles."""
    height = y / 0.5 - torch.floor(y / 0.5)
    return _above((1 - height) * 0.27 - _fold(x, 0.54))


def _tartan(x: Tensor, y: Tensor) -> Tensor:
    return (_stripes(x, 0.62, 0.45) + _stripes(y, 0.62, 0.45)) / 2


def _split(x: Tensor, y: Tensor) -> Tensor:
    return _above(x + y - 32, 0.5)


_HALF = math.sqrt(0.5)
_TEXTURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flat": lambda x, y: torch.zeros_like(x),
    "rows": lambda x, y: _stripes(y, 0.5),
    "columns": lambda x, y: _stripes(x, 0.5),
    "slash": lambda x, y: _stripes((x - y) * _HALF, 0.5),
    "backslash": lambda x, y: _stripes((x + y) * _HALF, 0.5),
    "checks": lambda x, y: _checks(x, y, 0.38),
    "lozenges": lambda x, y: _checks((x + y) * _HALF, (x - y) * _HALF, 0.36),
    "dots": _dots,
    "noise": _noise,
    "fall": lambda x, y: (0.5 - y * 0.62).clamp(0, 1),
    "sweep": lambda x, y: (0.5 + x * 0.62).clamp(0, 1),
    "glow": lambda x, y: (torch.hypot(x, y) * 1.1 - 0.15).clamp(0, 1),
    "halves": lambda x, y: _above(-y),
    "mesh": lambda x, y: torch.maximum(_stripes(x, 0.5, 0.26), _stripes(y, 0.5, 0.26)),
    "zigzag": lambda x, y: _stripes(y - _fold(x, 0.7) * 0.9, 0.5),
    "bricks": _bricks,
    "rays": lambda x, y: _above(torch.sin(6 * torch.atan2(y, x)), 0.15),
    "crosses": _crosses,
    "target": lambda x, y: _stripes(torch.hypot(x, y), 0.46),
    "waves": lambda x, y: _stripes(y - 0.12 * torch.sin(x * 2 * math.pi / 0.9), 0.5, 0.42),
    "teeth": _teeth,
    "tartan": _tartan,
}
_GROUNDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flat": lambda x, y: torch.zeros_like(x),
    "gradient": lambda x, y: y / 32,
    "grid": lambda x, y: torch.maximum(_above(0.5 - _fold(x - 4, 8), 0.25), _above(0.5 - _fold(y - 4, 8), 0.25)),
    "dotted": lambda x, y: _above(1.3 - torch.hypot(_fold(x - 4, 8), _fold(y - 4, 8)), 0.5),
    "split": _split,
}
