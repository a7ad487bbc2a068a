"""The shapes world in the host: a merge by our nodes is the engine's.

On random weights and LoRAs: identities, in float32, between a host's code and the benchmarks', which share nothing but
the file. The last is the purpose of the pack, on the trained world.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.shapes_world.applied import applied
from benchmarks.shapes_world.cases import case_of
from benchmarks.shapes_world.concepts import lora_path
from benchmarks.shapes_world.judging import Verdict, judge
from benchmarks.shapes_world.model import WEIGHTS, ShapesModel, encode_picture
from benchmarks.shapes_world.oracle import load_oracle
from benchmarks.shapes_world.render import render
from duolora_core import Gates, MergeConfig
from duolora_core.merge.masks_file import read_masks
from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.merge_graphs import add_save
from host.world_graphs import WHOLE_TIMESTEPS, add_sampling, add_world_merge, as_the_world_paints, give_pictures, world
from host.world_reference import folded, trained_gates
from random_world import random_lora
from word_world.both import SHAPES

CONTENT, STYLE = "world_content.safetensors", "world_style.safetensors"
PROMPTS = ("a sks1", "zwx2 style")
EVERY_LOSS = MergeConfig(steps=3, layer_prior_weight=1.0, cycle_weight=0.01)  # as `add_merge` sets the node


@pytest.fixture(scope="module")
def loras(server: ComfyServer, model: ShapesModel) -> tuple[Path, Path]:
    """A content LoRA of rank 8 and a style LoRA of rank 4, where the server finds them."""
    paths = server.loras / CONTENT, server.loras / STYLE
    for path, rank in zip(paths, (8, 4), strict=True):
        save_file(random_lora(model, rank, seed=rank), path)
    return paths


def masks_of_the_nodes(server: ComfyServer, graph: Graph, prefix: str) -> dict[str, Tensor]:
    server.run(add_save(graph, ["merge", 0], prefix, what="masks only"), timeout=600)
    (path,) = server.loras.glob(f"{prefix}_*.masks.safetensors")
    return dict(read_masks(path).values)


def difference(masks: dict[str, Tensor], gates: Gates) -> float:
    """The largest one. Three steps move a mask by up to 0.03, and another prompt or picture sends many elsewhere."""
    assert masks.keys() == gates.slots.keys()
    return max(float((masks[name] - gates.values[slot.whole]).abs().max()) for name, slot in gates.slots.items())


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("default", {}),
        ("other", {"initialisation": "random", "cycle_route": "differentiable", "gradient_checkpointing": True}),
    ],
)
def test_a_merge_by_the_nodes_is_the_engines(
    server: ComfyServer,
    weights: Path,
    model: ShapesModel,
    loras: tuple[Path, Path],
    case: str,
    options: dict[str, Any],
) -> None:
    """From pictures through LoadImage and VAE, three steps: the saved masks are those that the engine reaches alone."""
    graph = add_world_merge(world(weights), CONTENT, STYLE, PROMPTS, steps=3, seed=7, options=options)
    generator = torch.Generator().manual_seed(3)
    latents: dict[str, Tensor] = {}
    for side in ("content", "style"):
        pictures = render(torch.tensor([14, 3, 20]), torch.tensor([1, 15, 21]), generator)
        latents[side] = encode_picture(give_pictures(server, graph, side, pictures))
    masks = masks_of_the_nodes(server, graph, f"world/{case}")

    settings = {key: value for key, value in options.items() if key != "gradient_checkpointing"}
    config = replace(EVERY_LOSS, seed=7, **settings)
    assert difference(masks, trained_gates(model, loras, latents, PROMPTS, config)) < 1e-4
    elsewhere = trained_gates(model, loras, latents, ("a sks2", PROMPTS[1]), config)
    assert difference(masks, elsewhere) > 0.02


def test_a_merge_without_pictures_is_the_engines(
    server: ComfyServer, weights: Path, model: ShapesModel, loras: tuple[Path, Path]
) -> None:
    """The pictures that the merge samples for itself are those of each LoRA in the benchmarks' sampler."""
    own = {"own_pictures": 2, "own_pictures_steps": WHOLE_TIMESTEPS, "own_pictures_cfg": 3.0}
    graph = add_world_merge(world(weights), CONTENT, STYLE, PROMPTS, steps=3, seed=8, options=own)
    masks = masks_of_the_nodes(server, graph, "world/own")
    latents: dict[str, Tensor] = {}
    for side, path, seed, text in zip(("content", "style"), loras, (8, 8 ^ 0x5EED), PROMPTS, strict=True):
        with applied(model, folded(path, model)):
            made = [
                SHAPES.sampled_latents(model, text, seed + i, count=1, steps=WHOLE_TIMESTEPS, cfg=3.0) for i in range(2)
            ]
        latents[side] = torch.cat(made)
    gates = trained_gates(model, loras, latents, PROMPTS, replace(EVERY_LOSS, seed=8))
    assert difference(masks, gates) < 1e-4


def test_a_merge_through_the_nodes_keeps_what_stacking_loses(server: ComfyServer) -> None:
    """Two committed LoRAs of novel concepts, no pictures given, 24 pictures of the combined prompt by each way."""
    case = case_of("sks2+zwx2")
    names = {"content": "sks2.safetensors", "style": "zwx2.safetensors"}
    for (kind, name), label in zip(names.items(), (case.content, case.style), strict=True):
        shutil.copyfile(lora_path(kind, label), server.loras / name)  # type: ignore[arg-type]

    def verdict(graph: Graph, model: list[Any]) -> Verdict:
        add_sampling(graph, "sks2 zwx2", model=model, seed=1, steps=20, cfg=4.0, count=24)
        images = server.images(server.run(graph, timeout=600))["save"]
        return judge(as_the_world_paints(images), [case.prompt] * 24, load_oracle())

    stacked = world(WEIGHTS / "base.safetensors")
    for name, below in (("content", "world"), ("style", "content")):
        stacked[name] = node("LoraLoaderModelOnly", model=[below, 0], lora_name=names[name], strength_model=1.0)
    merged = add_world_merge(
        world(WEIGHTS / "base.safetensors"),
        names["content"],
        names["style"],
        ("sks2 ember", "disc zwx2"),
        combined_prompt="sks2 zwx2",
        steps=100,
        options={"own_pictures": 4, "own_pictures_steps": 20, "own_pictures_cfg": 6.0},
    )
    merged["apply"] = node(
        "DuoLoRAApplyMerged", model=["world", 0], merged=["merge", 0], content_strength=1.0, style_strength=1.0
    )
    plain, ours = verdict(stacked, ["style", 0]), verdict(merged, ["apply", 0])
    assert ours.harmonic > plain.harmonic + 0.2
    assert ours.content > 0.4
    assert ours.style > 0.4
