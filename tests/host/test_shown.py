"""What the nodes show: the report in words and as a picture, and the grid that compares methods."""

from __future__ import annotations

import numpy as np
import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node
from host.merge_graphs import CONTENT, STYLE, add_merge, models_only

RED, BLUE = 0xFF0000, 0x0000FF


@pytest.mark.usefixtures("loras")
def test_the_report_tells_in_words_what_the_merge_did(server: ComfyServer, checkpoint: str) -> None:
    """Strengths and cosine of this very merge; a prompt without trigger words is told, here and by the merge node."""
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=81, combined_prompt="a green bicycle")
    graph["report"] = node("DuoLoRAMergeReport", merged=["merge", 0])
    graph["words"] = node("PreviewAny", source=["report", 1])
    graph["info"] = node("PreviewAny", source=["merge", 3])
    history = server.run(graph, 300)
    words, info = (server.texts(history)[name][0] for name in ("words", "info"))
    assert "the content keeps" in words and "the style keeps" in words
    assert "cosine" in words
    assert "no word of the content prompt" in words
    assert all(line in info.splitlines() for line in words.splitlines())
    report = server.images(history)["report"][0]
    assert report.shape[1] == 1400
    assert len(np.unique(report.reshape(-1, 3), axis=0)) > 50


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
