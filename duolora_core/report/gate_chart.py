"""The gate map: how far each block of the UNet lets the content and the style through."""

from collections.abc import Sequence

from ..merge.statistics import BlockGates
from .block_rows import block_label, block_rows, small_text
from .canvas import CARD, CONTENT, GRID, INK, MUTED, STYLE, Box, Canvas, Colour, mix
from .fonts import shorten, text_width
from .scales import Axis, tick_label


def draw_gate_map(canvas: Canvas, box: Box, blocks: Sequence[BlockGates], px: int) -> None:
    """Draw one row per block, in the order given: content bars grow leftwards from the middle, style rightwards."""
    if not blocks:
        canvas.text(*box.centre, "no blocks", px, MUTED, "centre", box.width)
        return
    small = small_text(px)
    places = block_rows(box, len(blocks), px)
    head, body = places.head, places.body

    labels = [block_label(block.name) for block in blocks]
    stripe = px * 0.45
    label_width = min(max(text_width(label, places.text) for label in labels), box.width * 0.34)
    ranks = [(f"{b.content_active}/{b.content_rank}", f"{b.style_active}/{b.style_rank}") for b in blocks]
    rank_width = max(text_width(rank, places.text) for pair in ranks for rank in pair) + px * 0.8
    bars = body.inset(stripe + px * 0.5 + label_width + px * 0.4 + rank_width, 0, rank_width, 0)
    scale = Axis(0, max(1.0, *(max(b.content_mean, b.style_mean) for b in blocks)) * 1.02)
    middle = bars.centre[0]

    _draw_scale(canvas, bars, head, scale, px, small)
    canvas.text(box.left + stripe + px * 0.5, head.top + px * 0.7, "block", small, MUTED)
    canvas.text(bars.left - px * 0.4, head.top + px * 0.7, "active", small, MUTED, "right")
    canvas.text(bars.right + px * 0.4, head.top + px * 0.7, "active", small, MUTED, max_width=rank_width)
    canvas.text(box.left, body.bottom + small * 0.9, "mark: favoured side", small, MUTED, "left", bars.left - box.left)

    for i, (block, label, row) in enumerate(zip(blocks, labels, places.rows, strict=True)):
        gap = row.height * 0.16
        y = row.centre[1]
        canvas.rectangle(Box(row.left, row.top + gap, row.left + stripe, row.bottom - gap), _role_colour(block), 2)
        content = scale.fraction(block.content_mean) * bars.width / 2
        style = scale.fraction(block.style_mean) * bars.width / 2
        canvas.rectangle(Box(middle - content, row.top + gap, middle, row.bottom - gap), CONTENT)
        canvas.rectangle(Box(middle, row.top + gap, middle + style, row.bottom - gap), STYLE)
        if i % places.label_every == 0:
            left = row.left + stripe + px * 0.5
            canvas.text(left, y, shorten(label, places.text, label_width, keep_end=True), places.text)
            canvas.text(bars.left - px * 0.4, y, ranks[i][0], places.text, MUTED, "right")
            canvas.text(bars.right + px * 0.4, y, ranks[i][1], places.text, MUTED)
    canvas.vertical(middle, bars.top, bars.bottom, CARD)


def _role_colour(block: BlockGates) -> Colour:
    return {"content": CONTENT, "style": STYLE, "neutral": mix(MUTED, CARD, 0.35)}[block.role]


def _draw_scale(canvas: Canvas, bars: Box, head: Box, scale: Axis, px: int, small: int) -> None:
    """Grid lines of the mean gate to both sides of the centre, their numbers below, the two names above."""
    middle, half = bars.centre[0], bars.width / 2
    canvas.text(middle - px * 0.6, head.top + px * 0.7, "content", px, CONTENT, "right")
    canvas.text(middle + px * 0.6, head.top + px * 0.7, "style", px, STYLE)
    for tick in scale.ticks(3):
        for side in (-1, 1) if tick else (1,):
            x = middle + side * scale.fraction(tick) * half
            canvas.vertical(x, bars.top, bars.bottom, mix(MUTED, CARD, 0.4) if tick == 1 else GRID)
            canvas.text(x, bars.bottom + small * 0.9, tick_label(tick), small, INK if tick == 1 else MUTED, "centre")
