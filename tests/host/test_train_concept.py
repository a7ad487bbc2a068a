"""Train Concept LoRA in real ComfyUI: pictures in, a LoRA out that the merge, core's nodes and our files take."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from host.cancelling import cancelled
from host.comfy_host import ComfyServer, GraphFailed, GraphRejected
from host.graphs import Graph, node, text_to_image
from host.merge_graphs import (
    CONTENT_PROMPT,
    STYLE_PROMPT,
    add_merge,
    add_save,
    apply_and_paint,
    model_state,
    models_only,
    painted,
    saved_name,
    with_defaults,
)
from host.training_graphs import (
    CONTENT,
    CONTENT_BLOCK,
    CONTENT_LORA,
    INFO,
    LOSS,
    MERGED,
    STYLE,
    STYLE_BLOCK,
    STYLE_LORA,
    add_picture,
    add_training,
    core_save,
    same,
    saved_lora,
)


def training(server: ComfyServer, checkpoint: str, **inputs: Any) -> Graph:
    """A trainer on one picture."""
    graph = models_only(checkpoint)
    return add_training(server, graph, add_picture(server, graph, "dog"), **inputs)


def test_trained_lora_paints_the_same_by_every_way(server: ComfyServer, narrow: str) -> None:
    """Apply Merged LoRA, core's Load LoRA Model, our file in core's loader, and core's file in core's loader."""
    graph = apply_and_paint(training(server, narrow, steps=20, learning_rate=1e-2), ["train", MERGED])
    graph["core.save"] = core_save(server, ["train", CONTENT_LORA], "trained/core")
    graph = add_save(graph, ["train", MERGED], "trained/ours")
    with server.log_of() as log:
        picture = painted(server, graph, 600)
        (path,) = (server.base / "output").rglob("core*.safetensors")
        (server.loras / "core_saved.safetensors").write_bytes(path.read_bytes())
        for name in (saved_name(server, "trained/ours"), "core_saved.safetensors"):
            again = text_to_image(narrow, [(name, 1.0)], positive="a sks dog in wtrclr style", size=64)
            assert np.array_equal(picture, painted(server, again))
    assert "lora key not loaded" not in log.getvalue()
    graph["apply"] = with_defaults(server, "LoraModelLoader", model=["checkpoint", 0], lora=["train", CONTENT_LORA])
    for prompt in ("positive", "negative"):
        graph[prompt]["inputs"]["clip"] = ["clip", 0]
    assert np.array_equal(picture, painted(server, graph))
    plain = painted(server, text_to_image(narrow, positive="a sks dog in wtrclr style", size=64))
    assert np.abs(picture - plain).mean() > 1


def test_training_learns_the_picture(server: ComfyServer, narrow: str) -> None:
    """The loss is below that of the same draws untrained; the saved file's trigger words serve Load Content LoRA."""
    untrained = training(server, narrow, steps=40, learning_rate=1e-7, rank=8)
    untrained["loss"] = node("PreviewAny", source=["train", LOSS])
    before: dict[str, list[float]] = json.loads(server.texts(server.run(untrained, 900))["loss"][0])
    graph = training(server, narrow, steps=40, rank=8)
    graph["info"] = node("PreviewAny", source=["train", INFO])
    graph["loss"] = node("PreviewAny", source=["train", LOSS])
    graph = add_save(graph, ["train", MERGED], "learned/dog")
    texts = server.texts(server.run(graph, 900))
    info = texts["info"][0]
    assert info.startswith("DreamBooth: 40 steps in")
    assert "1 picture, trained at 64 x 64 pixels" in info
    assert "content: rank 8 in" in info and f"prompt: {CONTENT_PROMPT}" in info
    assert "loss on the pictures: " in info
    curves: dict[str, list[float]] = json.loads(texts["loss"][0])
    assert len(curves["loss"]) == len(curves["pictures"]) == 40
    assert np.mean(curves["loss"][20:]) < 0.9 * np.mean(before["loss"][20:])
    name = saved_name(server, "learned/dog")
    with safe_open(server.loras / name, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == CONTENT_PROMPT
    assert json.loads(metadata["duolora_recipe"])["config"]["steps"] == 40
    loaded: Graph = {"load": node("DuoLoRALoadContent", lora_name=name, prompt="", strength=1.0)}
    loaded["info"] = node("PreviewAny", source=["load", 1])
    assert f"prompt: {CONTENT_PROMPT}" in server.texts(server.run(loaded))["info"][0]


def test_train_two_concepts_and_merge_them_in_one_graph(server: ComfyServer, narrow: str) -> None:
    """The merge trains on the very pictures, without a VAE of its own."""
    graph = models_only(narrow)
    tall = add_picture(server, graph, "tall", 48, 80)
    add_training(server, graph, add_picture(server, graph, "dog"), name="subject", pictures_2=tall)
    look = add_picture(server, graph, "look", 80, 80)
    add_training(server, graph, look, name="look.train", role="style", prompt=STYLE_PROMPT)
    add_merge(graph, "", "", options={"own_pictures": 1})
    del graph["merge.content"], graph["merge.style"]
    graph["merge"]["inputs"] |= {"content": ["subject", CONTENT], "style": ["look.train", STYLE]}
    graph = add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], "two/merged")
    assert painted(server, graph, 600).std() > 5
    with safe_open(server.loras / saved_name(server, "two/merged"), framework="pt") as file:
        recipe = json.loads(file.metadata()["duolora_recipe"])
    assert [recipe["inputs"][side]["pictures"] for side in ("content", "style")] == [2, 1]


def test_b_lora_trains_its_two_blocks_and_splits(server: ComfyServer, narrow: str) -> None:
    """Either file holds one block; saved at strength 0 of the other, so does the part."""
    graph = training(server, narrow, role="both (B-LoRA)", seed=5)
    whole = saved_lora(server, graph, "b/both")
    content = saved_lora(server, graph, "b/content", style_strength=0.0)
    style = saved_lora(server, graph, "b/style", content_strength=0.0)
    assert content and all(CONTENT_BLOCK in key for key in content)
    assert style and all(STYLE_BLOCK in key for key in style)
    assert whole.keys() == content.keys() | style.keys()


def test_prior_preservation_paints_its_own_class_pictures_or_takes_the_artists(
    server: ComfyServer, narrow: str
) -> None:
    """Both add a class term; without a class prompt, or at weight 0, there is none."""
    few = {"own_pictures": 2, "own_pictures_steps": 2}
    graph = training(server, narrow, class_prompt="a photo of a dog", options=few)
    given = dict(graph)
    class_pictures = add_picture(server, given, "class", 80, 64)
    add_training(server, given, ["dog", 0], class_prompt="a photo of a dog", class_pictures=class_pictures)
    for each, count in ((graph, 2), (given, 1)):
        each["info"] = node("PreviewAny", source=["train", INFO])
        each["loss"] = node("PreviewAny", source=["train", LOSS])
        texts = server.texts(server.run(each, 300))
        assert f"prior preservation with {count} class pictures" in texts["info"][0]
        curves = json.loads(texts["loss"][0])
        assert np.allclose(curves["total"], np.add(curves["pictures"], curves["class"]), rtol=1e-5)
    plain = saved_lora(server, training(server, narrow), "prior/none")
    off = saved_lora(server, training(server, narrow, class_prompt="a dog", prior_weight=0.0), "prior/off")
    on = saved_lora(server, given, "prior/on")
    assert same(plain, off) and not same(plain, on)


def test_same_seed_same_lora(server: ComfyServer, narrow: str) -> None:
    """Trained again from an empty cache, with live samples, in parts and checkpointed; another seed differs."""
    inputs: dict[str, Any] = {"batch_size": 2, "seed": 2**64 - 1}
    first = saved_lora(server, training(server, narrow, **inputs), "seed/first")
    again = saved_lora(server, training(server, narrow, **inputs, options={"sample_every": 2}), "seed/again")
    other = saved_lora(server, training(server, narrow, **inputs | {"seed": 1}), "seed/other")
    assert same(first, again) and not same(first, other)
    options = {"micro_batch": 1, "memory_plan": "as set here", "gradient_checkpointing": True}
    in_parts = saved_lora(server, training(server, narrow, **inputs, options=options), "seed/parts")
    assert first.keys() == in_parts.keys()
    change = max(float((first[key] - in_parts[key]).abs().max()) for key in first)
    scale = max(float((first[key] - other[key]).abs().max()) for key in first)
    assert change < 0.02 * scale


def test_cancel_and_preview_and_the_model_is_as_it_was(server: ComfyServer, narrow: str) -> None:
    """The preview shows the curve and the sample; nothing is left in model or folders, after the end or a Cancel."""
    before = model_state(server, narrow)
    ended = training(server, narrow, seed=11, options={"coverage": "all"})
    ended["digest"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0], load=True, after=["train", MERGED])
    after = json.loads(server.texts(server.run(ended, 300))["digest"][0])
    assert after == before
    assert after["hooks"] == after["forward_overrides"] == after["with_grad"] == 0
    files = set(server.loras.rglob("*"))
    graph = training(server, narrow, steps=500, options={"sample_every": 2})
    graph = add_save(graph, ["train", MERGED], "cancelled/trained")
    seen = cancelled(server, graph, "train", steps=500, at=5)
    shown = [np.asarray(each, dtype=float) for each in seen.previews if each.size == (512, 512)]
    colours = [float((each.max(axis=2) - each.min(axis=2))[300:500, 180:330].mean()) for each in shown]
    assert colours[-1] > 2 * colours[0] + 5  # the sample below the curve; the first preview comes before it
    assert model_state(server, narrow) == before
    assert set(server.loras.rglob("*")) == files


def test_v_prediction(server: ComfyServer, checkpoint_v_ztsnr: str) -> None:
    """Trains to finite numbers with min-SNR weighting, convolutions too, and the file says what it is for."""
    options = {"min_snr_gamma": 5.0, "coverage": "all"}
    lora = saved_lora(server, training(server, checkpoint_v_ztsnr, options=options), "ztsnr/trained")
    assert all(bool(tensor.isfinite().all()) for tensor in lora.values())
    assert any(tensor.ndim == 4 for tensor in lora.values())
    with safe_open(server.loras / saved_name(server, "ztsnr/trained"), framework="pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"


def refused(server: ComfyServer, graph: Graph, message: str) -> None:
    with pytest.raises(GraphFailed, match=message):
        server.run(add_save(graph, ["train", MERGED], "errors/e"))


def test_errors_are_for_artists(server: ComfyServer, checkpoint: str) -> None:
    refused(server, training(server, checkpoint, prompt=" "), "prompt is empty. Say what is to be seen")
    refused(server, training(server, checkpoint, rank=512), r"rank 512 is larger than layer .* Set it to 320")
    refused(server, training(server, checkpoint, resolution=1024), "64 x 64 pixels would be enlarged .* at least 256")
    refused(server, training(server, checkpoint, options={"warmup_steps": 9}), "warmup is 9")
    refused(server, training(server, checkpoint, class_pictures=["dog", 0]), "class_prompt is empty")
    graph = training(server, checkpoint)
    del graph["train"]["inputs"]["vae"]
    with pytest.raises(GraphRejected, match="vae"):
        server.run(add_save(graph, ["train", MERGED], "errors/e"))


def test_a_role_that_was_not_trained_says_so(server: ComfyServer, narrow: str) -> None:
    """Nodes at that output do not run, and the artist reads why; all others run."""
    graph = training(server, narrow, seed=13)
    graph["wrong"] = node("PreviewAny", source=["train", STYLE_LORA])
    graph["right"] = node("PreviewAny", source=["train", INFO])
    with server.events() as stream:
        prompt_id = server.queue(graph)
        history = server.wait(prompt_id)
        stream.wait_until_finished(prompt_id)
        told = [each["exception_message"] for each in stream.of(prompt_id, "execution_error")]
    assert "right" in server.texts(history) and "wrong" not in server.texts(history)
    assert any("This node trained content only" in each for each in told)
