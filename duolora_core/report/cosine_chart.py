"""The cosine between content and style in each block: do the two LoRAs pull the same way, or not at all?"""

from collections.abc import Sequence

from ..merge.overlap import BlockOverlap
from .block_rows import block_rows, small_text
from .canvas import CARD, GRID, MUTED, PRIOR, Box, Canvas, mix
from .scales import Axis, tick_label


def draw_cosines(canvas: Canvas, box: Box, overlaps: Sequence[BlockOverlap], px: int) -> None:
    """Draw one row per block: a wide pale bar for the LoRAs as they came, a slim one for what their masks leave."""
    if not overlaps:
        canvas.text(*box.centre, "no blocks", px, MUTED, "centre", box.width)
        return
    small = small_text(px)
    places = block_rows(box, len(overlaps), px)
    cosines = [cosine for each in overlaps for cosine in (each.before.cosine, each.after.cosine) if cosine is not None]
    reach = max(0.1, *(abs(cosine) for cosine in cosines)) * 1.05 if cosines else 1.0
    numbers = px * 2.6
    bars = places.body.inset(px * 0.5, 0, numbers, 0)
    scale = Axis(-reach, reach)
    canvas.text(box.left, places.head.top + px * 0.7, "opposed", small, MUTED)
    canvas.text(bars.right, places.head.top + px * 0.7, "alike", small, MUTED, "right")
    ticks = [tick for tick in scale.ticks(3)]
    for tick in ticks:
        x = bars.left + scale.fraction(tick) * bars.width
        canvas.vertical(x, bars.top, bars.bottom, mix(MUTED, CARD, 0.5) if tick == 0 else GRID)
        canvas.text(x, bars.bottom + small * 0.9, tick_label(tick), small, MUTED, "centre")

    zero = bars.left + scale.fraction(0) * bars.width
    for i, (each, row) in enumerate(zip(overlaps, places.rows, strict=True)):
        shown = ((each.before.cosine, mix(PRIOR, CARD, 0.3), 0.2), (each.after.cosine, PRIOR, 0.38))
        for cosine, colour, gap in shown:
            if cosine is not None:
                x = bars.left + scale.fraction(cosine) * bars.width
                bar = Box(min(x, zero), row.top + gap * row.height, max(x, zero), row.bottom - gap * row.height)
                canvas.rectangle(bar, colour)
        if i % places.label_every == 0:
            number = "" if each.after.cosine is None else f"{round(each.after.cosine, 2) + 0.0:.2f}"  # no "-0.00"
            canvas.text(box.right, row.centre[1], number, places.text, MUTED, "right", numbers)
