"""A small drawing surface: everything is drawn three times as large and reduced, for smooth edges and even spacing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from .fonts import SUPERSAMPLE, shorten, typeset

Colour = tuple[int, int, int]
Align = Literal["left", "centre", "right"]

PAPER: Colour = (247, 246, 242)
CARD: Colour = (255, 255, 255)
INK: Colour = (31, 36, 48)
MUTED: Colour = (104, 112, 126)
GRID: Colour = (230, 229, 224)
CONTENT: Colour = (37, 99, 205)
STYLE: Colour = (226, 112, 32)
PRIOR: Colour = (126, 87, 194)


def mix(colour: Colour, onto: Colour, share: float) -> Colour:
    """`share` of `colour` over the rest of `onto`: a paler tone without transparency."""
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in zip(colour, onto, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the final image; the origin is at the top left."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def inset(self, left: float, top: float, right: float, bottom: float) -> "Box":
        """The box with this much taken off each side; it never turns inside out."""
        x, y = self.left + left, self.top + top
        return Box(x, y, max(x, self.right - right), max(y, self.bottom - bottom))

    def cut_top(self, height: float) -> tuple["Box", "Box"]:
        """The topmost `height` pixels, and what is left below them."""
        y = min(self.bottom, self.top + height)
        return Box(self.left, self.top, self.right, y), Box(self.left, y, self.right, self.bottom)

    def cut_left(self, width: float) -> tuple["Box", "Box"]:
        """The leftmost `width` pixels, and what is left beside them."""
        x = min(self.right, self.left + width)
        return Box(self.left, self.top, x, self.bottom), Box(x, self.top, self.right, self.bottom)


class Canvas:
    """Collects shapes and text; coordinates are pixels of the final image, fractions allowed."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.box = Box(0, 0, *size)
        width, height = size
        self._large = Image.new("RGB", (width * SUPERSAMPLE, height * SUPERSAMPLE), PAPER)
        self._draw = ImageDraw.Draw(self._large)

    def rectangle(self, box: Box, colour: Colour, radius: float = 0) -> None:
        """A filled rectangle with rounded corners; nothing if it is thinner than a third of a pixel."""
        s = SUPERSAMPLE
        x0, y0, x1, y1 = round(box.left * s), round(box.top * s), round(box.right * s) - 1, round(box.bottom * s) - 1
        if x1 < x0 or y1 < y0:
            return
        radius = max(0, min(radius * s, (x1 - x0) / 2 - 1, (y1 - y0) / 2 - 1))  # Pillow 9 fails on full half circles
        self._draw.rounded_rectangle((x0, y0, x1, y1), radius, fill=colour)

    def card(self, box: Box) -> None:
        """A white sheet with a fine border, to put a chart on."""
        self.rectangle(box, GRID, radius=10)
        self.rectangle(box.inset(1, 1, 1, 1), CARD, radius=9)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1) -> None:
        """A line through `points` with round joints and ends; a single point becomes a dot."""
        if len(points) > 1:
            scaled = [(x * SUPERSAMPLE, y * SUPERSAMPLE) for x, y in points]
            self._draw.line(scaled, fill=colour, width=max(1, round(width * SUPERSAMPLE)), joint="curve")
        for x, y in (points[0], points[-1]) if points else ():
            self.dot(x, y, width / 2, colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        s = SUPERSAMPLE
        self._draw.ellipse(((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s), fill=colour)

    def picture(self, box: Box, picture: Image.Image) -> None:
        """A picture as large as fits into the box, centred; one that is enlarged keeps its hard pixels."""
        s = SUPERSAMPLE
        scale = min(box.width * s / picture.width, box.height * s / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        method = Image.Resampling.NEAREST if scale >= s else Image.Resampling.LANCZOS
        x, y = box.centre
        corner = round(x * s - size[0] / 2), round(y * s - size[1] / 2)
        self._large.paste(picture.convert("RGB").resize(size, method), corner)

    def horizontal(self, left: float, right: float, y: float, colour: Colour) -> None:
        """A line one pixel wide, set on whole pixels so that it stays sharp."""
        self.rectangle(Box(left, round(y), right, round(y) + 1), colour)

    def vertical(self, x: float, top: float, bottom: float, colour: Colour) -> None:
        """A line one pixel wide, set on whole pixels so that it stays sharp."""
        self.rectangle(Box(round(x), top, round(x) + 1, bottom), colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        px: int,
        colour: Colour = INK,
        align: Align = "left",
        max_width: float | None = None,
        bold: bool = False,
    ) -> float:
        """One line of text whose capitals are centred on height `y`; returns its width.

        It is shortened to `max_width`, and moved where it would leave the canvas: text is never cut off.
        """
        text = shorten(text, px, min(self.box.width, self.box.width if max_width is None else max_width))
        if not text:
            return 0
        drawn, font = typeset(text, px)
        s, width = SUPERSAMPLE, font.getlength(drawn)
        x = x * s - {"left": 0, "centre": width / 2, "right": width}[align]
        x = min(max(0, x), self.box.width * s - width)
        _, cap_top, _, cap_bottom = font.getbbox("H")
        _, top, _, bottom = font.getbbox(drawn)
        y = y * s - (cap_top + cap_bottom) / 2
        y = min(max(-top, y), self.box.height * s - bottom)
        self._draw.text((x, y), drawn, fill=colour, font=font, stroke_width=int(bold))  # 1: a third of a pixel
        return width / s

    def image(self) -> Image.Image:
        """The finished RGB picture, exactly `size`."""
        return self._large.reduce(SUPERSAMPLE)
