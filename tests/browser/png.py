"""Small files for pictures of a user interface."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

COLOURS = 256
KMEANS = 2
"""Rounds in which the palette moves to the colours that are there: without, greys take on a tint."""


def save_png(picture: Image.Image, path: Path) -> None:
    """With a palette of its own, chosen so that thin lines in a colour of their own keep it; the file is a third."""
    palette = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=KMEANS, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)
