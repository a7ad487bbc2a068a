"""The gate map by layer kind: how open the masks are in the attention, feed-forward and other layers of each block."""

from collections.abc import Mapping, Sequence

from ..merge.statistics import KindGates
from ..model.layer_kinds import KINDS, LayerKind
from .block_rows import block_rows, small_text
from .canvas import CARD, CONTENT, GRID, INK, MUTED, STYLE, Box, Canvas, Colour, mix

_SHORT: Mapping[LayerKind, str] = {
    "self-attention": "self",
    "cross-attention": "cross",
    "feed-forward": "feed fwd",
    "projection": "proj",
    "convolution": "conv",
    "embedding": "time",
}


def draw_kind_map(canvas: Canvas, box: Box, blocks: Sequence[str], kinds: Sequence[KindGates], px: int) -> None:
    """Draw one row per block and one column per kind that is there: content tinted at the left, style at the right."""
    if not kinds:
        canvas.text(*box.centre, "no layers", px, MUTED, "centre", box.width)
        return
    small = small_text(px)
    places = block_rows(box, len(blocks), px)
    columns: list[LayerKind] = [kind for kind in KINDS if any(each.kind == kind for each in kinds)]
    width = box.width / len(columns)
    means = [mean for each in kinds for mean in (each.content_mean, each.style_mean) if mean is not None]
    fullest = max(1.0, *means)
    found = {(each.block, each.kind): each for each in kinds}

    for j, kind in enumerate(columns):
        column = Box(box.left + j * width, places.body.top, box.left + (j + 1) * width, places.body.bottom)
        canvas.text(column.centre[0], places.head.top + px * 0.7, _SHORT[kind], small, MUTED, "centre", width)
        for i, block in enumerate(blocks):
            row = places.rows[i]
            gap = min(2.0, row.height * 0.08)
            cell = Box(column.left + 3, row.top + gap, column.right - 3, row.bottom - gap)
            each = found.get((block, kind))
            halves = zip(cell.cut_left(cell.width / 2), _sides(each), (CONTENT, STYLE), strict=True)
            for half, mean, colour in halves:
                _draw_half(canvas, half.inset(0.5, 0, 0.5, 0), mean, fullest, colour, min(small, places.text))
    y = places.body.bottom + small * 0.9
    canvas.text(box.centre[0], y, "mean |gate|, content and style", small, MUTED, "centre", box.width)


def _sides(each: KindGates | None) -> tuple[float | None, float | None]:
    return (None, None) if each is None else (each.content_mean, each.style_mean)


def _draw_half(canvas: Canvas, half: Box, mean: float | None, fullest: float, colour: Colour, px: int) -> None:
    """A tint that is the deeper the more open the masks are, with the number where there is room for it."""
    if mean is None:
        canvas.rectangle(half, mix(GRID, CARD, 0.35), 3)
        return
    share = mean / fullest
    canvas.rectangle(half, mix(colour, CARD, 0.06 + 0.84 * share**2), 3)  # squared: near 1 is where they differ
    number = f"{mean:.2f}".removeprefix("0")
    if half.height > px * 1.1:
        canvas.text(*half.centre, number, px, CARD if share > 0.75 else INK, "centre", half.width)
