"""API graphs with the nodes that train LoRAs from pictures, and what they put out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.merge_graphs import CONTENT_PROMPT, STYLE_PROMPT, add_save, saved_name, with_defaults

JOINT_PROMPT = "a sks dog in wtrclr style"
CONTENT, STYLE, CONTENT_LORA, STYLE_LORA, MERGED, LOSS, INFO = range(7)
"""The outputs of both trainers."""

CONTENT_BLOCK, STYLE_BLOCK = "output_blocks_0_1", "output_blocks_1_1"
"""Those of B-LoRA, as they are spelled in a file."""


def add_picture(server: ComfyServer, graph: Graph, name: str, width: int = 64, height: int = 64) -> list[Any]:
    """Adds a picture of random colours in large squares, the same for the same name; returns the link to it."""
    generator = np.random.default_rng(sum(name.encode()))
    squares = generator.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    Image.fromarray(squares).resize((width, height), Image.Resampling.NEAREST).save(
        server.base / "input" / f"{name}.png"
    )
    graph[name] = node("LoadImage", image=f"{name}.png")
    return [name, 0]


def add_training(
    server: ComfyServer,
    graph: Graph,
    pictures: list[Any],
    *,
    name: str = "train",
    kind: str = "TrainConceptLoRA",
    options: dict[str, Any] | None = None,
    **inputs: Any,
) -> Graph:
    """Adds a trainer of few steps at 64 pixels, and Train Options if any are given, to a checkpoint and a CLIP."""
    given: dict[str, Any] = {
        "model": ["checkpoint", 0],
        "clip": ["clip", 0],
        "vae": ["checkpoint", 2],
        "steps": 3,
        "rank": 4,
        "learning_rate": 1e-3,
        "resolution": 64,
    }
    if kind == "TrainConceptLoRA":
        given |= {"pictures": pictures, "prompt": CONTENT_PROMPT}
    else:
        given |= {"picture": pictures, "prompt": JOINT_PROMPT}
        given |= {"content_prompt": "a sks dog", "style_prompt": STYLE_PROMPT}
    if options is not None:
        graph[f"{name}.options"] = with_defaults(server, "DuoLoRATrainOptions", **options)
        given["options"] = [f"{name}.options", 0]
    whole = with_defaults(server, f"DuoLoRA{kind}", **given | inputs)
    optional = {key: value for key, value in (given | inputs).items() if key not in whole["inputs"]}
    graph[name] = node(f"DuoLoRA{kind}", **whole["inputs"], **optional)
    return graph


def saved_lora(
    server: ComfyServer, graph: Graph, prefix: str, *, name: str = "train", **save: Any
) -> dict[str, Tensor]:
    """Trains, saves all that was trained in fp32, and reads the file."""
    graph = add_save(dict(graph), [name, MERGED], prefix, precision="fp32", **save)
    server.run(graph, 600)
    return load_file(server.loras / saved_name(server, prefix))


def core_save(server: ComfyServer, lora: list[Any], prefix: str) -> dict[str, Any]:
    """Core's Save LoRA Weights, by the id that it has in this ComfyUI."""
    (kind,) = [each for each in ("SaveLoRA", "SaveLoRANode") if server.object_info(each)]
    return with_defaults(server, kind, lora=lora, prefix=prefix)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
