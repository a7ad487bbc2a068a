"""The slider and the block probe paint what the two strengths and the masks say they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, ours
from host.merge_graphs import add_merge, add_save, apply_and_paint, models_only, painted
from host.narrow import CONTENT, STYLE


def base(narrow: str) -> Graph:
    return add_merge(models_only(narrow), CONTENT, STYLE, seed=91)


def painted_by(server: ComfyServer, narrow: str, class_type: str, **inputs: Any) -> np.ndarray:
    """A picture with another node in place of Apply Merged LoRA."""
    graph = apply_and_paint(base(narrow), ["merge", 0])
    graph["apply"] = ours(class_type, model=["checkpoint", 0], clip=["clip", 0], merged=["merge", 0], **inputs)
    return painted(server, graph)


@pytest.mark.parametrize(("balance", "content", "style"), [(0.0, 1.0, 0.0), (0.25, 1.0, 0.5), (0.5, 1, 1), (1, 0, 1)])
def test_the_slider_is_two_strengths(
    server: ComfyServer, narrow: str, balance: float, content: float, style: float
) -> None:
    slid = painted_by(server, narrow, "ContentStyleSlider", balance=balance)
    applied = painted(server, apply_and_paint(base(narrow), ["merge", 0], content=content, style=style))
    assert np.array_equal(slid, applied)


def test_a_probe_that_turns_nothing_is_apply_and_one_that_turns_all_off_is_the_other_lora(
    server: ComfyServer, narrow: str
) -> None:
    def probed(**inputs: Any) -> np.ndarray:
        return painted_by(server, narrow, "BlockProbe", **inputs)

    applied = painted(server, apply_and_paint(base(narrow), ["merge", 0]))
    assert np.array_equal(probed(), applied)
    turned = probed(alpha=0.0)
    assert np.abs(turned - applied).mean() > 1
    for other in ({"blocks": "content blocks"}, {"layer_prior": "b_lora_aware"}, {"lora": "content"}):
        assert np.abs(probed(alpha=0.0, **other) - turned).mean() > 0.1


def test_a_turned_merge_is_saved_as_it_paints(server: ComfyServer, narrow: str) -> None:
    """One block by name, through the `merged` output and Apply; the info names it; its masks are not saved."""
    inputs: dict[str, Any] = {"blocks": "blocks by name", "block_names": "output_blocks.1, mid_block", "alpha": -0.5}
    direct = painted_by(server, narrow, "BlockProbe", **inputs)
    graph = base(narrow)
    graph["probe"] = ours("BlockProbe", model=["checkpoint", 0], clip=["clip", 0], merged=["merge", 0], **inputs)
    apply_and_paint(graph, ["probe", 2])
    graph["info"] = node("PreviewAny", source=["probe", 3])
    history = server.run(add_save(graph, ["probe", 2], "probed/p"), 300)
    assert np.array_equal(server.images(history)["save"][0], direct)
    assert "up_blocks.0.attentions.1" in server.texts(history)["info"][0]
    graph["saved"]["inputs"]["what"] = "masks only"
    with pytest.raises(GraphFailed, match="no masks of their own"):
        server.run(graph, 300)


@pytest.mark.parametrize(
    ("names", "words"), [("", "Write the blocks to turn"), ("up_blocks.9", "this model has no block 'up_blocks.9'")]
)
def test_a_block_that_is_not_there_is_refused(server: ComfyServer, narrow: str, names: str, words: str) -> None:
    graph = base(narrow)
    inputs: dict[str, Any] = {"blocks": "blocks by name", "block_names": names}
    graph["probe"] = ours("BlockProbe", model=["checkpoint", 0], merged=["merge", 0], **inputs)
    add_save(graph, ["probe", 2], "probed/none")
    with pytest.raises(GraphFailed, match=words):
        server.run(graph, 300)
