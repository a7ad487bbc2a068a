"""The rank histograms: how many ranks the two mergers keep, layer by layer, after the paper's Fig. 4."""

from collections.abc import Sequence
from typing import TypedDict

from .canvas import CARD, CONTENT, GRID, MUTED, STYLE, Box, Canvas, mix
from .fonts import text_width
from .scales import Axis, tick_label

_MOST_BINS = 17


class MergerRanks(TypedDict):
    """The active ranks of both mergers, one number per layer."""

    content: Sequence[int]
    style: Sequence[int]


def bin_width(largest: int) -> int:
    """Ranks per bin: the smallest power of two that gets 0 to `largest` into at most 17 bins, so 64 has its own."""
    width = 1
    while largest >= _MOST_BINS * width:
        width *= 2
    return width


def draw_rank_histogram(
    canvas: Canvas, box: Box, content_dominant: MergerRanks, style_dominant: MergerRanks, px: int
) -> None:
    """Draw two panels on common axes: layers that should favour the content at the left, the style at the right."""
    panels = (("content-dominant layers", content_dominant), ("style-dominant layers", style_dominant))
    everything = [rank for _, ranks in panels for rank in (*ranks["content"], *ranks["style"])]
    width = bin_width(max(everything, default=0))
    bins = max(everything, default=0) // width + 1
    counts = [[_count(ranks[side], width, bins) for side in ("content", "style")] for _, ranks in panels]
    layers = Axis(0, max(1, *(n for panel in counts for side in panel for n in side)) * 1.06)

    left, right = box.cut_left(box.width / 2)
    areas = (left.inset(0, 0, px, 0), right.inset(px, 0, 0, 0))
    for area, (title, ranks), panel in zip(areas, panels, counts, strict=True):
        canvas.text(area.left, area.top + px * 0.6, title, px, max_width=area.width)
        plot = _draw_legend(canvas, area.inset(0, px * 1.6, 0, 0), ranks, px)
        if not ranks["content"] and not ranks["style"]:
            canvas.text(*plot.centre, "no layers", px, MUTED, "centre", plot.width)
            continue
        plot = _draw_axes(canvas, plot, layers, width, bins, px)
        step = plot.width / bins
        for side, (numbers, colour) in enumerate(zip(panel, (CONTENT, STYLE), strict=True)):
            for i, number in enumerate(numbers):
                if number:
                    top = round(plot.bottom - layers.fraction(number) * plot.height)  # whole pixels keep the edge sharp
                    left = plot.left + (i + side / 2) * step
                    canvas.rectangle(Box(left + 1 - side, top, left + step / 2 - side, plot.bottom), colour)


def _count(ranks: Sequence[int], width: int, bins: int) -> list[int]:
    """How many layers fall into each bin [i · width, (i + 1) · width)."""
    numbers = [0] * bins
    for rank in ranks:
        numbers[rank // width] += 1
    return numbers


def _draw_legend(canvas: Canvas, area: Box, ranks: MergerRanks, px: int) -> Box:
    """The two mergers with their mean rank; returns what is left below."""
    small = max(8, round(px * 0.9))
    x, y = area.left, area.top + px * 0.6
    for name, numbers, colour in (("content", ranks["content"], CONTENT), ("style", ranks["style"], STYLE)):
        label = f"{name}, mean {sum(numbers) / len(numbers):.1f}" if numbers else name
        if x > area.left and x + px + text_width(label, small) > area.right:
            x, y = area.left, y + px * 1.4
        canvas.rectangle(Box(x, y - px * 0.35, x + px * 0.7, y + px * 0.35), colour, 2)
        x += px
        x += canvas.text(x, y, label, small, max_width=max(0.0, area.right - x)) + px
    return area.inset(0, y + px * 1.2 - area.top, 0, 0)


def _draw_axes(canvas: Canvas, area: Box, layers: Axis, width: int, bins: int, px: int) -> Box:
    """Grid, layer counts at the left and active ranks below; returns the plot area inside them."""
    small = max(8, round(px * 0.8))
    plot = area.inset(small * 2.4, small * 0.4, 0, small * 3.1)
    for tick in layers.ticks(4):
        if tick == int(tick):
            y = plot.bottom - layers.fraction(tick) * plot.height
            canvas.horizontal(plot.left, plot.right, y, GRID)
            canvas.text(plot.left - small * 0.5, y, tick_label(tick), small, MUTED, "right")
    canvas.horizontal(plot.left, plot.right, plot.bottom, mix(MUTED, CARD, 0.5))
    every = 1
    while bins * small * 3 > every * plot.width:
        every *= 2
    for i in range(0, bins + (width > 1), every):
        x = plot.left + (i if width > 1 else i + 0.5) * plot.width / bins  # wide bins are labelled at their edges
        canvas.text(x, plot.bottom + small * 0.9, str(i * width), small, MUTED, "centre")
    canvas.text(plot.centre[0], plot.bottom + small * 2.3, "active ranks per layer", small, MUTED, "centre", plot.width)
    return plot
