"""Pictures side by side with a name for each row and column: one look tells which method kept what."""

from collections.abc import Sequence

from PIL import Image

from .canvas import MUTED, Box, Canvas
from .fonts import text_width

MARGIN, GAP, TEXT = 14, 6, 13
LINE = TEXT + 7


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    cell: int = 96,
    note: str = "",
) -> Image.Image:
    """A labelled grid. Every picture is fitted into a square of `cell` pixels; small ones keep their hard pixels.

    Args:
        rows: pictures, row by row, all rows equally long
        captions: a line below each picture
        note: a line below everything

    Raises:
        ValueError: rows of different lengths, or another number of names or captions than pictures.
    """
    columns = len(column_names)
    tables = [rows, captions] if captions is not None else [rows]
    if len(row_names) != len(rows) or any(len(row) != columns for table in tables for row in table):
        raise ValueError(f"{len(row_names)} x {columns} names do not fit the pictures or their captions")
    named = MARGIN + (round(max(text_width(name, TEXT) for name in row_names)) + 10 if any(row_names) else 0)
    headed = MARGIN + (LINE if any(column_names) else 0)
    step = cell + GAP + (LINE if captions is not None else 0)
    width = named + columns * (cell + GAP) - GAP + MARGIN
    height = headed + len(rows) * step - GAP + MARGIN + (LINE if note else 0)
    canvas = Canvas((width, height))
    for j, name in enumerate(column_names):
        left = named + j * (cell + GAP)
        canvas.text(left + cell / 2, headed - LINE / 2, name, TEXT, align="centre", max_width=cell + GAP - 4)
    for i, (name, pictures) in enumerate(zip(row_names, rows, strict=True)):
        top = headed + i * step
        canvas.text(MARGIN, top + cell / 2, name, TEXT)
        for j, picture in enumerate(pictures):
            left = named + j * (cell + GAP)
            canvas.picture(Box(left, top, left + cell, top + cell), picture)
            if captions is not None:
                canvas.text(
                    left + cell / 2, top + cell + LINE / 2, captions[i][j], TEXT - 1, MUTED, "centre", cell + GAP - 4
                )
    if note:
        canvas.text(MARGIN, height - MARGIN / 2 - LINE / 2, note, TEXT - 1, MUTED, max_width=width - 2 * MARGIN)
    return canvas.image()
