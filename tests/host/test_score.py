"""Score Merge with the host's own vision classes: likeness where it is known, and a word where there is no number."""

from __future__ import annotations

import re
from typing import Any

import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node

RED, BLUE = 0xFF0000, 0x0000FF


def scored(kind: str, **inputs: Any) -> Graph:
    """Two red pictures, to compare with red and blue ones."""
    graph = {
        "red": node("EmptyImage", width=96, height=64, batch_size=2, color=RED),
        "blue": node("EmptyImage", width=64, height=64, batch_size=1, color=BLUE),
        "vision": node("DuoLoRATestTinyVision", kind=kind),
        "clip": node("DuoLoRATestTinyCLIP"),
    }
    defaults: dict[str, Any] = {"content_images": ["red", 0], "style_images": ["blue", 0]}
    graph["score"] = node("DuoLoRAScoreMerge", images=["red", 0], clip_vision=["vision", 0], **{**defaults, **inputs})
    return graph


def table(server: ComfyServer, graph: Graph) -> str:
    return server.texts(server.run(graph))["score"][0]


def cells(table: str, measure: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {measure} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize(("kind", "measure"), [("bigG", "CLIP-I"), ("dinov2", "DINO")])
def test_pictures_are_most_like_themselves(server: ComfyServer, kind: str, measure: str) -> None:
    found = table(server, scored(kind))
    content, style, text = cells(found, measure)
    assert content == "1.000" and float(style) < 1.0 and text == ""
    assert cells(found, f"{measure} of the references among themselves") == ["1.000", "", ""]
    assert "CSD-s" in found


def test_the_numbers_are_those_of_the_table(server: ComfyServer) -> None:
    """The outputs are plain floats; one that was not measured stops only what is connected to it."""
    graph = scored("bigG")
    for i, name in enumerate(("content", "style", "text"), start=1):
        graph[name] = node("PreviewAny", source=["score", i])
    texts = server.texts(server.run(graph))
    content, style, _ = cells(texts["score"][0], "CLIP-I")
    assert f"{float(texts['content'][0]):.3f}" == content
    assert f"{float(texts['style'][0]):.3f}" == style
    assert "text" not in texts


def test_text_is_scored_only_in_its_own_space(server: ComfyServer) -> None:
    """SDXL's text beside a projection of its width; a note beside another width and beside DINO."""
    prompted = {"clip": ["clip", 0], "prompt": "a red square"}
    (*_, text) = cells(table(server, scored("bigG", **prompted)), "CLIP-T")
    assert re.fullmatch(r"-?0\.\d{3}", text)
    other = scored("H", clip_vision_2=["dino", 0], **prompted)
    other["dino"] = node("DuoLoRATestTinyVision", kind="dinov2")
    found = table(server, other)
    assert "| CLIP-T |" not in found
    assert "1280 numbers and the vision model's pictures 1024" in found
    assert "a DINO model knows no text" in found
    assert len(cells(found, "DINO")) == len(cells(found, "CLIP-I")) == 3


def test_what_cannot_be_scored_is_refused(server: ComfyServer) -> None:
    with pytest.raises(GraphFailed, match="gives no embedding for a whole picture"):
        server.run(scored("siglip"))
    nothing = scored("bigG")
    del nothing["score"]["inputs"]["content_images"], nothing["score"]["inputs"]["style_images"]
    with pytest.raises(GraphFailed, match="Nothing to compare with"):
        server.run(nothing)
