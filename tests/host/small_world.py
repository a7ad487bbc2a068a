"""What the workflows ask of a ComfyUI, as files of the shapes world under the names of an artist's."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.shapes_world.concepts import lora_path
from benchmarks.shapes_world.model import WEIGHTS
from benchmarks.shapes_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.render import render
from host.comfy_host import ComfyServer, History
from workflow_files import Workflow, api_graph, workflows
from workflow_on_small_model import CHECKPOINT, CONCEPTS, Kind, on_small_model, picture_names, picture_of_both

PICTURE = 512
"""Pixels of a picture as an artist has it, sixteen times the world's own."""
COMPANIONS: dict[Kind, str] = {"content": "moss", "style": "triangle"}
"""What the pictures show beside the concept, as the prompts of its loader say."""


def add_checkpoint(server: ComfyServer, name: str) -> None:
    """Put the world where core's Load Checkpoint finds it; the test-only pack makes it one."""
    words = {"contents": CONTENTS, "styles": STYLES}
    metadata = {kind: " ".join(entry.name for entry in table) for kind, table in words.items()}
    save_file(load_file(WEIGHTS / "base.safetensors"), server.checkpoints / name, metadata)


def furnish(server: ComfyServer) -> None:
    """Checkpoint, LoRAs and pictures under the names that stand in the workflows and in their graphs on this model."""
    add_checkpoint(server, CHECKPOINT)
    tables = {"content": CONTENTS, "style": STYLES}
    for concept in CONCEPTS:
        label = [entry.name for entry in tables[concept.kind]].index(concept.word)
        shutil.copyfile(lora_path(concept.kind, label), server.loras / concept.file)
        for name, picture in zip(picture_names(concept.kind, 2), _pictures(concept.kind, label), strict=True):
            if not (server.base / "input" / name).exists():  # of two subjects, the first
                picture.save(server.base / "input" / name)
    labels = {each: [entry.name for entry in tables[each.kind]].index(each.word) for each in CONCEPTS}
    for content in (each for each in CONCEPTS if each.kind == "content"):
        for style in (each for each in CONCEPTS if each.kind == "style"):
            (picture,) = _drawn([labels[content]], [labels[style]], labels[content])
            picture.save(server.base / "input" / picture_of_both(content.word, style.word))


def _pictures(kind: Kind, label: int) -> list[Image.Image]:
    known = STYLES if kind == "content" else CONTENTS
    beside = [entry.name for entry in known].index(COMPANIONS[kind])
    return _drawn([label] * 2, [beside] * 2, label) if kind == "content" else _drawn([beside] * 2, [label] * 2, label)


def _drawn(contents: list[int], styles: list[int], seed: int) -> list[Image.Image]:
    """One picture for each pair, as large as an artist's."""
    generator = torch.Generator().manual_seed(seed)
    drawn = render(torch.tensor(contents), torch.tensor(styles), generator)  # (n, 3, 32, 32) in [-1, 1]
    arrays: list[np.ndarray[Any, Any]] = [
        (each * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy() for each in drawn
    ]
    return [Image.fromarray(array).resize((PICTURE, PICTURE), Image.Resampling.NEAREST) for array in arrays]


def run_small(
    server: ComfyServer,
    workflow: Workflow,
    steps: int | None = None,
    training_steps: int | None = None,
    batch: int | None = None,
) -> History:
    """Runs a workflow on the shapes world; see `on_small_model` for the numbers."""
    graph = on_small_model(api_graph(workflow), steps, training_steps, batch)
    for node in graph.values():
        node["inputs"] = _defaults(server, node["class_type"]) | node["inputs"]
    return server.run(graph, timeout=1800)


def _defaults(server: ComfyServer, node_type: str) -> dict[str, Any]:
    """What a page fills in where a saved graph gives no value."""
    required = server.object_info(node_type)[node_type]["input"]["required"]
    return {name: spec[1]["default"] for name, spec in required.items() if len(spec) > 1 and "default" in spec[1]}


def save_what_others_reuse(server: ComfyServer, steps: int | None = None) -> None:
    """Runs the workflow that saves a merged LoRA and its masks, which two others load."""
    (workflow,) = [each for each in workflows() if each.name.startswith("02")]
    run_small(server, workflow, steps)
