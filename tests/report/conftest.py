"""What is written on the pictures of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from PIL import ImageDraw

from duolora_core.report.canvas import Box
from duolora_core.report.fonts import SUPERSAMPLE


@dataclass(frozen=True)
class Lettering:
    """One piece of text: its ink covers `box`, in pixels of the final picture."""

    text: str
    box: Box


@pytest.fixture
def letterings(monkeypatch: pytest.MonkeyPatch) -> list[Lettering]:
    """Every piece of text that Pillow draws during the test."""
    found: list[Lettering] = []
    draw = ImageDraw.ImageDraw.text

    def recorded(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *, font: Any, **options: Any) -> None:
        left, top, right, bottom = font.getbbox(text)
        corners = (xy[0] + left, xy[1] + top, xy[0] + right, xy[1] + bottom)
        found.append(Lettering(text, Box(*(each / SUPERSAMPLE for each in corners))))
        draw(self, xy, text, font=font, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    return found
