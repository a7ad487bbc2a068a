"""Text that can be read: which font, how wide, where to shorten and where to wrap."""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SUPERSAMPLE = 3  # everything is drawn this much larger and then reduced

# What Pillow's built-in font can draw. It has no dashes, accents, arrows or Greek.
_BUILT_IN = frozenset(map(chr, range(32, 127))) | frozenset("·…±•°“”‘’")
_PLAINER = str.maketrans({"—": "-", "–": "-", "−": "-", "→": "->", "←": "<-", "×": "x", "≤": "<=", "≥": ">="})
# For names that it cannot draw (Chinese, Cyrillic, …): the first of these that the system has. What even that one
# lacks shows as an empty box, as in any program.
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "wqy-microhei.ttc",
    "DejaVuSans.ttf",
    "arial.ttf",
)


@lru_cache(maxsize=64)
def built_in_font(px: int) -> Font:
    """Pillow's own font, `px` high; before Pillow 10.1 that has one tiny size, and a system font comes first."""
    try:
        return ImageFont.load_default(px)
    except TypeError:  # load_default() took no size
        return wide_font(px) or ImageFont.load_default()


@lru_cache(maxsize=64)
def wide_font(px: int) -> Font | None:
    """A system font with many scripts, or None where none of the known ones is installed."""
    for name in _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, px)
        except OSError:
            continue
    return None


def typeset(text: str, px: int) -> tuple[str, Font]:
    """The nearest text that can be drawn, and the font for it, supersampled: "café × 2" becomes "cafe x 2"."""
    px *= SUPERSAMPLE
    text = " ".join(text.translate(_PLAINER).split())
    plain = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    if _BUILT_IN.issuperset(plain):
        return plain, built_in_font(px)
    wide = wide_font(px)
    if wide is not None:
        return text, wide
    return "".join(c if c in _BUILT_IN else "?" for c in plain), built_in_font(px)


def text_width(text: str, px: int) -> float:
    """Width in pixels of the final image of `text`, drawn `px` high."""
    drawn, font = typeset(text, px)
    return font.getlength(drawn) / SUPERSAMPLE


def shorten(text: str, px: int, width: float, keep_end: bool = False) -> str:
    """`text` if it fits into `width` pixels, else as much of its start (or end) as fits beside an ellipsis."""
    if text_width(text, px) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = "…" + text[-kept:].lstrip() if keep_end else text[:kept].rstrip() + "…"
        if text_width(short, px) <= width:
            return short
    return ""


def wrap(text: str, px: int, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at spaces, or inside a word that is longer than a line."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if text_width(joined, px) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and text_width(word, px) > width:
            fits = max((n for n in range(1, len(word)) if text_width(word[:n], px) <= width), default=1)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines
