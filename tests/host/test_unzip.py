"""UnZip Image in real ComfyUI: one picture into two LoRAs, which work alone, together, and with those of others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, text_to_image
from host.merge_graphs import (
    STYLE_PROMPT,
    add_merge,
    add_save,
    apply_and_paint,
    models_only,
    painted,
    saved_name,
)
from host.training_graphs import (
    CONTENT,
    INFO,
    JOINT_PROMPT,
    LOSS,
    MERGED,
    STYLE,
    add_picture,
    add_training,
    same,
    saved_lora,
)

STRONG: dict[str, Any] = {"steps": 20, "learning_rate": 5e-3}
"""Enough to change what the tiny checkpoint paints."""


def unzipping(server: ComfyServer, checkpoint: str, **inputs: Any) -> Graph:
    graph = models_only(checkpoint)
    return add_training(server, graph, add_picture(server, graph, "dog"), kind="UnZipImage", **inputs)


def merge_of(graph: Graph, content: list[Any], style: list[Any], **inputs: Any) -> Graph:
    """Adds a merge of what trainers put out."""
    add_merge(graph, "", "", **inputs)
    del graph["merge.content"], graph["merge.style"]
    graph["merge"]["inputs"] |= {"content": content, "style": style}
    return graph


def test_either_side_and_the_whole_are_ordinary_loras(server: ComfyServer, narrow: str) -> None:
    """Saved alone or together they are read by core's loader; the parts add up to the whole."""
    graph = apply_and_paint(unzipping(server, narrow, **STRONG), ["train", MERGED])
    picture = painted(server, add_save(graph, ["train", MERGED], "unzip/whole"), 600)
    graph["info"] = node("PreviewAny", source=["train", INFO])
    graph["loss"] = node("PreviewAny", source=["train", LOSS])
    with server.log_of() as log:
        texts = server.texts(server.run(graph, 300))
        again = text_to_image(narrow, [(saved_name(server, "unzip/whole"), 1.0)], positive=JOINT_PROMPT, size=64)
        assert np.array_equal(picture, painted(server, again))
        plain = painted(server, text_to_image(narrow, positive=JOINT_PROMPT, size=64))
        alone: dict[str, np.ndarray] = {}
        for side, off in (("content", "style_strength"), ("style", "content_strength")):
            other_off: dict[str, Any] = {off: 0.0}
            server.run(add_save(dict(graph), ["train", MERGED], f"unzip/{side}", **other_off), 300)
            name = saved_name(server, f"unzip/{side}")
            alone[side] = painted(server, text_to_image(narrow, [(name, 1.0)], positive=JOINT_PROMPT, size=64))
            with safe_open(server.loras / name, framework="pt") as file:
                words = file.metadata()["modelspec.trigger_phrase"]
            assert words == {"content": "a sks dog", "style": STYLE_PROMPT}[side]
    assert "lora key not loaded" not in log.getvalue()
    for one, other in (("content", plain), ("style", plain), ("content", alone["style"]), ("style", picture)):
        assert np.abs(alone[one] - other).mean() > 0.5
    info, curves = texts["info"][0], json.loads(texts["loss"][0])
    assert info.startswith("UnZipLoRA: 20 steps in")
    assert "of all columns opened" in info and f"prompt: {STYLE_PROMPT}" in info
    assert set(curves) == {"loss", "total", "pictures", "overlap"}


def test_unzip_and_merge_again_comes_close_to_the_joint_model(server: ComfyServer, narrow: str) -> None:
    graph = unzipping(server, narrow, **STRONG)
    joint = painted(server, apply_and_paint(dict(graph), ["train", MERGED]), 600)
    merge_of(graph, ["train", CONTENT], ["train", STYLE], steps=10, layer_prior_weight=0.0)
    merged = painted(server, apply_and_paint(graph, ["merge", 0]), 600)
    plain = painted(server, text_to_image(narrow, positive=JOINT_PROMPT, size=64))
    assert np.abs(merged - joint).mean() < 0.5 * np.abs(plain - joint).mean()


def test_content_of_one_picture_in_the_style_of_another_in_one_graph(server: ComfyServer, narrow: str) -> None:
    graph = unzipping(server, narrow, **STRONG, name="a")
    other = add_picture(server, graph, "cat", 80, 64)
    add_training(server, graph, other, kind="UnZipImage", name="b", **STRONG, seed=1)
    merge_of(graph, ["a", CONTENT], ["b", STYLE])
    picture = painted(server, apply_and_paint(dict(graph), ["merge", 0]), 900)
    for own in ("a", "b"):
        assert np.abs(picture - painted(server, apply_and_paint(dict(graph), [own, MERGED]), 300)).mean() > 0.5


def test_prompts_of_any_length_go_together(server: ComfyServer, narrow: str) -> None:
    """A joint prompt of two chunks, a content prompt of one, and a style prompt of three."""
    long = {"prompt": "a sks dog " + "on the grass " * 30, "style_prompt": "an image in wtrclr style " * 35}
    lora = saved_lora(server, unzipping(server, narrow, **long), "unzip/long")
    assert lora and all(bool(tensor.isfinite().all()) for tensor in lora.values())


def test_padding_changes_nothing_where_no_prompt_is_long(server: ComfyServer, narrow: str) -> None:
    """The same seed gives the same LoRA; each separation that is turned off gives another."""
    first = saved_lora(server, unzipping(server, narrow, seed=3), "unzip/first")
    again = saved_lora(server, unzipping(server, narrow, seed=3, options={"sample_every": 1}), "unzip/again")
    assert same(first, again)
    for part in ("prompts", "columns", "blocks"):
        without = unzipping(server, narrow, seed=3, options={f"separate_{part}": False})
        assert not same(first, saved_lora(server, without, f"unzip/without_{part}")), part


def test_a_part_without_a_prompt_is_told(server: ComfyServer, narrow: str) -> None:
    with pytest.raises(GraphFailed, match=r"content_prompt is empty\. Say what is to be seen"):
        server.run(add_save(unzipping(server, narrow, content_prompt=""), ["train", MERGED], "errors/e"))
