"""Baseline Merge in real ComfyUI: every method paints, and the ones with an equal elsewhere paint exactly that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, ours, text_to_image
from host.lora_samples import Layer, attention_linears, make_lora, text_layers
from host.merge_graphs import add_loaders, add_merge, give_pictures, model_state, models_only
from host.narrow import narrowed
from host.training_graphs import core_save

CONTENT, STYLE = "baseline_content.safetensors", "baseline_style.safetensors"
PROMPT = "a sks dog in wtrclr style"


@pytest.fixture(scope="module", autouse=True)
def loras(server: ComfyServer, layers: list[Layer]) -> None:
    """Two kohya LoRAs with text encoder parts, which core's loader reads whole: attention alone, and all layers."""
    layers = narrowed(layers)
    make_lora(server.loras / CONTENT, attention_linears(layers), rank=8, alpha=4, te_layers=text_layers())
    make_lora(server.loras / STYLE, layers, rank=4, seed=5, te_layers=text_layers())


def baseline(method: str, content: float = 1.0, style: float = 1.0, **inputs: Any) -> dict[str, Any]:
    """The node, fed by the loaders of `add_loaders(…, "pair")`."""
    inputs = {"steps": 3, "resolution": 64} | inputs
    links = {
        "model": ["checkpoint", 0],
        "clip": ["clip", 0],
        "content": ["pair.content", 0],
        "style": ["pair.style", 0],
    }
    return ours("BaselineMerge", **links, method=method, content_strength=content, style_strength=style, **inputs)


def with_pair(checkpoint: str) -> Graph:
    """A checkpoint, the tiny CLIP and the two loaders."""
    return add_loaders(models_only(checkpoint), CONTENT, STYLE, "pair")


def add_painting(graph: Graph, source: str) -> Graph:
    """Adds a picture painted with the MODEL and CLIP that node `source` gives out, saved by node "source.save"."""
    painting = text_to_image("", positive=PROMPT, size=64)
    del painting["checkpoint"], painting["clip"]
    for name, each in painting.items():
        inputs = {
            key: [f"{source}.{value[0]}", value[1]] if isinstance(value, list) and value[0] in painting else value
            for key, value in each["inputs"].items()
        }
        graph[f"{source}.{name}"] = each | {"inputs": inputs}
    graph[f"{source}.sampler"]["inputs"]["model"] = [source, 0]
    for prompt in ("positive", "negative"):
        graph[f"{source}.{prompt}"]["inputs"]["clip"] = [source, 1]
    return graph


def pictures(server: ComfyServer, graph: Graph) -> dict[str, np.ndarray]:
    """{source: its picture as integers, (height, width, 3)}."""
    found = server.images(server.run(graph, 600))
    return {name.removesuffix(".save"): shown[0].astype(int) for name, shown in found.items()}


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


def core_chain(content: float, style: float) -> Graph:
    """Two of core's LoRA loaders one after the other; the last is "chain"."""
    loaded: Graph = {}
    for name, before, lora, strength in (("first", None, CONTENT, content), ("chain", "first", STYLE, style)):
        loaded[name] = node(
            "LoraLoader",
            model=[before or "checkpoint", 0],
            clip=[before, 1] if before else ["clip", 0],
            lora_name=lora,
            strength_model=strength,
            strength_clip=strength,
        )
    return loaded


def test_every_method_without_training(server: ComfyServer, narrow: str) -> None:
    """One graph: a picture by each, different from the plain one; stack is core's chain of loaders, average half of it.

    Stack and the chain differ by the rounding of the factors to fp16, at most 2 of 255.
    """
    kind, *details = server.object_info("DuoLoRABaselineMerge")["DuoLoRABaselineMerge"]["input"]["required"]["method"]
    options: list[str] = kind if isinstance(kind, list) else details[0]["options"]
    methods = [name for name in options if not name.startswith("ZipLoRA")]
    graph = with_pair(narrow) | {name: baseline(name) for name in methods}
    graph |= core_chain(0.7, -0.4)
    graph["as the chain"] = baseline("stack", 0.7, -0.4)
    graph["half"] = baseline("stack", 0.5, 0.5)
    graph["DARE again"] = baseline("DARE", seed=1)
    graph["plain"] = baseline("stack", 0.0, 0.0)
    for source in (*methods, "chain", "as the chain", "half", "DARE again", "plain"):
        add_painting(graph, source)
    found = pictures(server, graph)

    reference = server.images(server.run(text_to_image(narrow, positive=PROMPT, size=64)))["save"][0].astype(int)
    assert difference(found["plain"], reference) == 0
    assert difference(found["as the chain"], found["chain"]) <= 2
    assert difference(found["average"], found["half"]) == 0
    assert difference(found["DARE"], found["DARE again"]) > 0
    assert len({found[name].tobytes() for name in methods}) == len(methods)
    for name in methods:
        assert found[name].std() > 5, name
        assert np.abs(found[name] - reference).mean() > 1, name


def test_zip_lora_is_saved_by_core_and_painted_again(server: ComfyServer, narrow: str) -> None:
    """What Save LoRA Weights wrote of a trained ZipLoRA paints, in core's LoraLoader, exactly the node's picture.

    Plot Loss Graph draws its losses, and does not run, nor fail, behind a method without training. ZipRank Merge
    without a cycle begins with the same losses: both start at the plain sum, on the same pictures, noise and timestep.
    """
    graph = add_merge(models_only(narrow), CONTENT, STYLE, name="pair", cycle_weight=0.0)
    graph["zip"] = baseline("ZipLoRA", options=["pair.options", 0])
    graph["stack"] = baseline("stack")
    for name in ("zip", "stack"):
        graph[f"{name}.file"] = core_save(server, [name, 2], f"loras/{name}")
        graph[f"{name}.plot"] = node("LossGraphNode", loss=[name, 3], filename_prefix=name)
        graph[f"{name}.info"] = node("PreviewAny", source=[name, 4])
        add_painting(graph, name)
    for name, output in (("pair", 2), ("zip", 3)):
        graph[f"{name}.loss"] = node("PreviewAny", source=[name, output])
    history = server.run(graph, 600)
    shown, texts = server.images(history), server.texts(history)
    ours, theirs = (json.loads(texts[f"{name}.loss"][0]) for name in ("pair", "zip"))
    for term in ("reconstruction_content", "reconstruction_style"):
        assert ours[term][0] == pytest.approx(theirs[term][0], rel=1e-3)
    assert "zip.plot" in shown and "stack.plot" not in shown
    assert texts["zip.info"][0].startswith("ZipLoRA, 3 steps")
    assert texts["stack.info"][0].startswith("stack, no training")
    for name in ("zip", "stack"):
        (file,) = (server.base / "output" / "loras").glob(f"{name}_*.safetensors")
        file.rename(server.loras / f"{name}.safetensors")
        again = text_to_image(narrow, [(f"{name}.safetensors", 1.0)], positive=PROMPT, size=64)
        assert np.array_equal(server.images(server.run(again))["save"][0], shown[f"{name}.save"][0])
    assert difference(shown["zip.save"][0].astype(int), shown["stack.save"][0].astype(int)) > 0


def test_zip_lora_leaves_the_model_as_it_was(server: ComfyServer, narrow: str) -> None:
    """After training over both dimensions the UNet is bit for bit what it was."""
    before = model_state(server, narrow)
    graph = with_pair(narrow)
    graph["pair"] = baseline("ZipLoRA")
    give_pictures(server, graph, "pair")
    graph["inputs"] = baseline("ZipLoRA, input dimension", vae=["checkpoint", 2])
    graph["digest"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0], load=True, after=["pair", 2])
    graph["digest2"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0], load=True, after=["inputs", 2])
    texts = server.texts(server.run(graph, 600))
    assert json.loads(texts["digest"][0]) == json.loads(texts["digest2"][0]) == before


def test_errors_are_for_artists(server: ComfyServer, narrow: str) -> None:
    """ZipLoRA without CLIP, pictures without VAE and swapped loaders are each told plainly."""
    graph = with_pair(narrow)
    graph["pair"] = baseline("ZipLoRA")
    graph["info"] = node("PreviewAny", source=["pair", 4])
    give_pictures(server, graph, "pair")
    del graph["pair"]["inputs"]["vae"]
    with pytest.raises(GraphFailed, match="connect the checkpoint's"):
        server.run(graph)
    del graph["pair"]["inputs"]["clip"]
    with pytest.raises(GraphFailed, match=r"ZipLoRA trains with both prompts, so it needs CLIP"):
        server.run(graph)
    graph["pair"]["inputs"] |= {"method": "TIES", "content": ["pair.style", 0], "style": ["pair.content", 0]}
    with pytest.raises(GraphFailed, match="Swap the two loaders"):
        server.run(graph)
    graph["pair"]["inputs"] |= {"content": ["pair.content", 0], "style": ["pair.style", 0]}
    assert "not applied here, because clip is not connected" in server.texts(server.run(graph))["info"][0]
