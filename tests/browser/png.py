"""Small files for pictures of a user interface."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

COLOURS = 128


def save_png(picture: Image.Image, path: Path) -> None:
    """With a palette of its own: flat colours lose nothing, and the file is a third."""
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
