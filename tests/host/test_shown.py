"""The grid that compares methods: every picture in its place, or a word why not."""

from __future__ import annotations

import numpy as np
import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node

RED, BLUE = 0xFF0000, 0x0000FF


def grid(**inputs: object) -> Graph:
    """Two pictures each of red and blue, as columns 1 and 3."""
    graph = {
        "red": node("EmptyImage", width=96, height=64, batch_size=2, color=RED),
        "blue": node("EmptyImage", width=96, height=64, batch_size=2, color=BLUE),
    }
    defaults = {"labels": "one\ntwo", "row_labels": "", "cell": 96, "note": ""}
    graph["grid"] = node("DuoLoRACompareGrid", images_1=["red", 0], images_3=["blue", 0], **defaults | inputs)
    return graph


def test_a_grid_holds_every_picture_in_its_column(server: ComfyServer) -> None:
    """Two rows of 96 x 64, pixel by pixel, the first batch left of the other."""
    (sheet,) = server.images(server.run(grid()))["grid"]
    red, blue = ((sheet == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.sum() == blue.sum() == 2 * 96 * 64
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()


@pytest.mark.parametrize(
    ("inputs", "count", "words"),
    [
        ({}, 1, "images_1 has 2, images_3 has 1"),
        ({"labels": "one"}, 2, "labels has 1 lines for 2 columns"),
        ({"row_labels": "a\nb\nc"}, 2, "row_labels has 3 lines for 2 rows"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(
    server: ComfyServer, inputs: dict[str, object], count: int, words: str
) -> None:
    graph = grid(**inputs)
    graph["blue"]["inputs"]["batch_size"] = count
    with pytest.raises(GraphFailed, match=words):
        server.run(graph)
