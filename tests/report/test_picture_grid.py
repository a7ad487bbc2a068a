"""Labelled grids of pictures: the right picture in the right place, and nothing lost at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from duolora_core.report import picture_grid

COLOURS = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]


def tiles(size: tuple[int, int] = (8, 8)) -> list[list[Image.Image]]:
    return [[Image.new("RGB", size, colour) for colour in row] for row in COLOURS]


def extent(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box of all pixels of exactly this colour."""
    ys, xs = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_pictures_stand_in_rows_and_columns_and_fill_their_cells() -> None:
    sheet = picture_grid(tiles(), ["stacked", "merged"], ["one", "two"], cell=64)
    boxes = [[extent(sheet, colour) for colour in row] for row in COLOURS]
    for row in boxes:
        assert row[0][2] <= row[1][0] and row[0][1] == row[1][1]
    for above, below in zip(*boxes, strict=True):
        assert above[3] <= below[1] and above[0] == below[0]
    assert all((right - left, bottom - top) == (64, 64) for row in boxes for left, top, right, bottom in row)
    assert boxes[1][1][2] < sheet.width and boxes[1][1][3] < sheet.height


def test_wide_pictures_keep_their_proportions() -> None:
    sheet = picture_grid(tiles((16, 8)), ["", ""], ["", ""], cell=60)
    left, top, right, bottom = extent(sheet, COLOURS[0][0])
    assert (right - left, bottom - top) == (60, 30)


def test_cells_have_the_shape_of_the_pictures() -> None:
    wide, square = (
        picture_grid(tiles((16, 8)), ["", ""], ["", ""], cell=60),
        picture_grid(tiles(), ["", ""], ["", ""], cell=60),
    )
    assert wide.width == square.width
    assert square.height - wide.height == 2 * 30


def test_a_picture_of_the_cells_size_is_shown_pixel_by_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    sheet = np.asarray(picture_grid([[Image.fromarray(noise)]], [""], ["noise"], cell=64))
    found = [
        (y, x)
        for y in range(sheet.shape[0] - 39)
        for x in range(sheet.shape[1] - 63)
        if np.array_equal(sheet[y : y + 40, x : x + 64], noise)
    ]
    assert len(found) == 1


def test_letters_grow_with_the_cells() -> None:
    heights: list[int] = []
    for cell in (96, 660):
        sheet = picture_grid([[Image.new("RGB", (8, 8), COLOURS[0][0])]], [""], ["name"], cell=cell)
        heights.append(extent(sheet, COLOURS[0][0])[1])
    assert heights[1] > 2 * heights[0]


def test_a_note_makes_room_for_itself() -> None:
    plain, told = (picture_grid(tiles(), ["a", "b"], ["c", "d"], note=note) for note in ("", "same noise"))
    assert told.width == plain.width
    assert told.height > plain.height + 15


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 x 2 names"):
        picture_grid(tiles(), ["a", "b", "c"], ["d", "e"])
