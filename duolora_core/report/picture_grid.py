"""Pictures side by side with a name for each row and column: one look tells which method kept what."""

from collections.abc import Sequence

from PIL import Image

from .canvas import MUTED, Box, Canvas
from .fonts import text_width

SMALLEST_TEXT = 13


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    cell: int = 96,
    note: str = "",
) -> Image.Image:
    """A labelled grid. All cells are as large as the largest picture when its longer side has `cell` pixels.

    Pictures of that very size are shown pixel by pixel; small ones are enlarged and keep their hard pixels.

    Args:
        rows: pictures, row by row, all rows equally long
        note: a line below everything

    Raises:
        ValueError: rows of different lengths, or another number of names than pictures.
    """
    columns = len(column_names)
    if len(row_names) != len(rows) or any(len(row) != columns for row in rows):
        raise ValueError(f"{len(row_names)} x {columns} names do not fit the pictures")
    text = max(SMALLEST_TEXT, round(cell / 22))
    margin, gap, line = text + 1, max(6, text // 2), round(text * 1.55)
    cell_width, cell_height = _cell([picture for row in rows for picture in row], cell)
    named = margin + (round(max(text_width(name, text) for name in row_names)) + 10 if any(row_names) else 0)
    headed = margin + (line if any(column_names) else 0)
    step = cell_height + gap
    width = named + columns * (cell_width + gap) - gap + margin
    height = headed + len(rows) * step - gap + margin + (line if note else 0)
    canvas = Canvas((width, height))
    room = cell_width + gap - 4
    for j, name in enumerate(column_names):
        left = named + j * (cell_width + gap)
        canvas.text(left + cell_width / 2, headed - line / 2, name, text, align="centre", max_width=room)
    for i, (name, pictures) in enumerate(zip(row_names, rows, strict=True)):
        top = headed + i * step
        canvas.text(margin, top + cell_height / 2, name, text)
        for j, picture in enumerate(pictures):
            left = named + j * (cell_width + gap)
            canvas.picture(Box(left, top, left + cell_width, top + cell_height), picture)
    if note:
        canvas.text(margin, height - margin / 2 - line / 2, note, text - 1, MUTED, max_width=width - 2 * margin)
    return canvas.image()


def _cell(pictures: Sequence[Image.Image], longer_side: int) -> tuple[int, int]:
    """The (width, height) that holds every picture when its longer side has this many pixels."""
    scales = [longer_side / max(picture.size) for picture in pictures]
    widths, heights = (
        [round(picture.size[i] * scale) for picture, scale in zip(pictures, scales, strict=True)] for i in (0, 1)
    )
    return max(widths, default=longer_side), max(heights, default=longer_side)
