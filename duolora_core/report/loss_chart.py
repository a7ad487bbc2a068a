"""The loss curve: every part of the loss over the steps, smoothed line over faint measurements."""

import math
from collections.abc import Mapping, Sequence

from .canvas import CARD, CONTENT, GRID, INK, MUTED, PRIOR, STYLE, Box, Canvas, Colour, mix
from .fonts import shorten, text_width
from .scales import Axis, smooth, tick_label, value_axis

_OTHER_COLOURS: tuple[Colour, ...] = ((20, 140, 120), (190, 50, 110), (120, 110, 40), (90, 90, 160))


def draw_loss_curve(
    canvas: Canvas, box: Box, losses: Mapping[str, Sequence[float]], total_steps: int | None, px: int
) -> None:
    """Draw the named series into `box`, with text `px` high; element i of a series is its loss after step i + 1."""
    series = {name: values for name, values in losses.items() if len(values)}
    if not series:
        canvas.text(*box.centre, "no steps yet", px, MUTED, "centre", box.width)
        return
    colours = {name: series_colour(name, index) for index, name in enumerate(series)}
    plot = _draw_legend(canvas, box, series, colours, px)

    steps = Axis(0, max(total_steps or 0, *(len(values) for values in series.values()), 1))
    heights = value_axis([value for values in series.values() for value in values])
    plot = _draw_axes(canvas, plot, steps, heights, px)

    def place(values: Sequence[float]) -> list[tuple[float, float]]:
        return [
            (plot.left + steps.fraction(i + 1) * plot.width, plot.bottom - heights.fraction(value) * plot.height)
            for i, value in enumerate(values)
            if math.isfinite(value)
        ]

    for name, values in series.items():
        canvas.line(place(values), mix(colours[name], CARD, 0.22), 1)
    for name, values in reversed(series.items()):  # the first series, the total, lies on top
        finite = [value for value in values if math.isfinite(value)]
        line = place(smooth(finite, max(1, len(finite) // 12)))
        canvas.line(line, colours[name], px / 6)
        for x, y in line[-1:]:
            canvas.dot(x, y, px / 4, CARD)
            canvas.dot(x, y, px / 5, colours[name])


def series_colour(name: str, index: int) -> Colour:
    """Content is blue and style orange, as in every chart, their cycle losses paler; total dark, prior violet."""
    for word, colour in (("content", CONTENT), ("style", STYLE), ("prior", PRIOR), ("total", INK)):
        if word in name:
            return mix(colour, CARD, 0.55) if "cycle" in name else colour
    return _OTHER_COLOURS[index % len(_OTHER_COLOURS)]


def _draw_legend(
    canvas: Canvas, box: Box, series: Mapping[str, Sequence[float]], colours: Mapping[str, Colour], px: int
) -> Box:
    """Names with their newest values, in as many rows as they need; returns the box that is left below."""
    small = max(8, round(px * 0.9))
    swatch, gap = px * 1.1, px * 1.3
    x, y = box.left, box.top + px * 0.6
    for name, values in series.items():
        value = tick_label(float(f"{values[-1]:.3g}"))
        room = box.width - swatch - px - text_width(value, small)
        label = shorten(name.replace("_", " "), small, room)
        width = swatch + px * 0.8 + text_width(label, small) + text_width(value, small)
        if x > box.left and x + width > box.right:
            x, y = box.left, y + px * 1.45
        canvas.line([(x + 2, y), (x + swatch - 2, y)], colours[name], px / 5)
        x += swatch + px * 0.4
        x += canvas.text(x, y, label, small) + px * 0.4
        x += canvas.text(x, y, value, small, MUTED) + gap
    return box.inset(0, y + px * 1.2 - box.top, 0, 0)


def _draw_axes(canvas: Canvas, box: Box, steps: Axis, heights: Axis, px: int) -> Box:
    """Grid lines and tick labels; returns the plot area inside them."""
    small = max(8, round(px * 0.8))
    ticks = heights.ticks(max(2, min(6, int(box.height / (small * 3)))))
    margin = max((text_width(tick_label(tick), small) for tick in ticks), default=0) + small * 0.6
    plot = box.inset(margin, small * 0.4, px * 0.6, small * 1.9)
    for tick in ticks:
        y = plot.bottom - heights.fraction(tick) * plot.height
        canvas.horizontal(plot.left, plot.right, y, GRID)
        canvas.text(plot.left - small * 0.5, y, tick_label(tick), small, MUTED, "right")
    canvas.horizontal(plot.left, plot.right, plot.bottom, mix(MUTED, CARD, 0.5))
    for tick in steps.ticks(max(2, min(8, int(box.width / (small * 6))))):
        if tick == int(tick):
            x = plot.left + steps.fraction(tick) * plot.width
            canvas.vertical(x, plot.bottom, plot.bottom + 4, mix(MUTED, CARD, 0.5))
            canvas.text(x, plot.bottom + small * 1.2, f"{tick:.0f}", small, MUTED, "centre")
    canvas.text(plot.left - small * 0.8, plot.bottom + small * 1.2, "step", small, MUTED, "right")
    return plot
