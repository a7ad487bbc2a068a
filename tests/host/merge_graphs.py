"""API graphs with our nodes around core nodes, and what is asked of a server about them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image

from host.comfy_host import ComfyServer
from host.graphs import Graph, node, text_to_image

CONTENT, STYLE = "content.safetensors", "style.safetensors"
"""The LoRA files that the fixture `loras` makes."""

CONTENT_PROMPT = "a photo of sks dog"
STYLE_PROMPT = "a painting in wtrclr style"

OPTIONS: dict[str, Any] = {
    "preset": "as set here",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "basis": "svd",
    "initialisation": "ones",
    "content_threshold": 0.1,
    "style_threshold": 0.0,
    "prior_form": "diagonal",
    "sparsity": 0.1,
    "rank_weight": 2.0,
    "cycle_route": "authors",
    "reconstruction_weight": 1.0,
    "custom_prior": "",
    "micro_batch": 4,
    "gradient_checkpointing": False,
    "compute_dtype": "as loaded",
    "own_pictures": 1,
    "own_pictures_steps": 2,
    "own_pictures_cfg": 3.0,
    "negative_prompt": "",
}


def add_loaders(graph: Graph, content: str, style: str, name: str) -> Graph:
    """Adds the loaders `name.content` and `name.style`."""
    graph[f"{name}.content"] = node("DuoLoRALoadContent", lora_name=content, prompt=CONTENT_PROMPT, strength=1.0)
    graph[f"{name}.style"] = node("DuoLoRALoadStyle", lora_name=style, prompt=STYLE_PROMPT, strength=1.0)
    return graph


def add_masks(graph: Graph, masks: str, loaders: str) -> Graph:
    """Adds `masks`, which makes a merge again from its masks file and the loaders `loaders.content` and `.style`."""
    pair = {role: [f"{loaders}.{role}", 0] for role in ("content", "style")}
    graph["masks"] = node("DuoLoRALoadMasks", model=["checkpoint", 0], masks=masks, **pair)
    return graph


def add_merge(
    graph: Graph,
    content: str,
    style: str,
    *,
    name: str = "merge",
    model: list[Any] | None = None,
    clip: list[Any] | None = None,
    steps: int = 2,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    **inputs: Any,
) -> Graph:
    """Adds both loaders, the options and the merge node `name` to a graph with a checkpoint and a CLIP."""
    add_loaders(graph, content, style, name)
    graph[f"{name}.options"] = node("DuoLoRAMergeOptions", **OPTIONS | (options or {}))
    defaults: dict[str, Any] = {
        "combined_prompt": "a sks dog in wtrclr style",
        "resolution": 64,
        "layer_prior": "resolution",
        "layer_prior_weight": 1.0,
        "cycle_weight": 0.01,
    }
    graph[name] = node(
        "DuoLoRAZipRankMerge",
        model=model or ["checkpoint", 0],
        clip=clip or ["clip", 0],
        content=[f"{name}.content", 0],
        style=[f"{name}.style", 0],
        steps=steps,
        seed=seed,
        options=[f"{name}.options", 0],
        **defaults | inputs,
    )
    return graph


def models_only(checkpoint: str) -> Graph:
    """A checkpoint and the tiny CLIP."""
    picture = text_to_image(checkpoint)
    return {name: picture[name] for name in ("checkpoint", "clip")}


def apply_and_paint(
    graph: Graph,
    merged: list[Any],
    *,
    content: float = 1.0,
    style: float = 1.0,
    model: list[Any] | None = None,
) -> Graph:
    """Adds Apply Merged LoRA and a picture painted with it, saved by node "save"."""
    painting = text_to_image("", positive="a sks dog in wtrclr style", size=64)
    for name in ("checkpoint", "clip"):
        del painting[name]
    graph |= painting
    graph["apply"] = node(
        "DuoLoRAApplyMerged",
        model=model or ["checkpoint", 0],
        clip=["clip", 0],
        merged=merged,
        content_strength=content,
        style_strength=style,
    )
    graph["sampler"]["inputs"]["model"] = ["apply", 0]
    for prompt in ("positive", "negative"):
        graph[prompt]["inputs"]["clip"] = ["apply", 1]
    return graph


def add_save(graph: Graph, merged: list[Any], prefix: str, *, name: str = "saved", **inputs: Any) -> Graph:
    """Adds Save Merged LoRA."""
    defaults: dict[str, Any] = {
        "content_strength": 1.0,
        "style_strength": 1.0,
        "precision": "fp16",
        "max_rank": 0,
        "what": "LoRA",
    }
    graph[name] = node("DuoLoRASaveMerged", merged=merged, filename_prefix=prefix, **defaults | inputs)
    return graph


def painted(server: ComfyServer, graph: Graph, timeout: float = 300) -> np.ndarray:
    """The picture of node "save" as integers, (height, width, 3)."""
    return server.images(server.run(graph, timeout))["save"][0].astype(int)


def saved_name(server: ComfyServer, prefix: str) -> str:
    """The only file saved under a prefix, as the LoRA list shows it."""
    (path,) = server.loras.glob(f"{prefix}_?????.safetensors")
    return path.relative_to(server.loras).as_posix()


def merged_picture_and_file(
    server: ComfyServer, checkpoint: str, prefix: str, loras: tuple[str, str] = (CONTENT, STYLE), **merge: Any
) -> tuple[np.ndarray, str]:
    """Merges the two LoRA files, paints with the merge and saves it; the picture and the saved file's name."""
    graph = add_merge(models_only(checkpoint), *loras, **merge)
    graph = add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], prefix)
    return painted(server, graph, timeout=1800), saved_name(server, prefix)


def give_pictures(server: ComfyServer, graph: Graph, name: str = "merge") -> Graph:
    """Connects a tall picture to the content loader and a square one to the style loader, and the VAE to the merge."""
    generator = np.random.default_rng(0)
    for side, shape in (("content", (96, 64, 3)), ("style", (80, 80, 3))):
        picture = Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8))
        picture.save(server.base / "input" / f"{side}.png")
        graph[side] = node("LoadImage", image=f"{side}.png")
        graph[f"{name}.{side}"]["inputs"]["pictures"] = [side, 0]
    graph[name]["inputs"]["vae"] = ["checkpoint", 2]
    return graph


def model_state(server: ComfyServer, checkpoint: str) -> dict[str, Any]:
    """What the digest node says of the checkpoint's UNet as it is now."""
    graph = models_only(checkpoint)
    graph["digest"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0], load=True)
    report: dict[str, Any] = json.loads(server.texts(server.run(graph))["digest"][0])
    return report


def with_defaults(server: ComfyServer, class_type: str, **inputs: Any) -> dict[str, Any]:
    """A core node with its own defaults for every widget that is not given; inputs it does not have are left out."""
    required = server.object_info(class_type)[class_type]["input"]["required"]
    defaults: dict[str, Any] = {}
    for name, (kind, *details) in required.items():
        if isinstance(kind, list):
            defaults[name] = details[0].get("default", kind[0])
        elif details and "default" in details[0]:
            defaults[name] = details[0]["default"]
    return node(class_type, **defaults | {name: value for name, value in inputs.items() if name in required})


def executed(history: dict[str, Any]) -> set[str]:
    """The nodes of a prompt that ran and did not come from the cache."""
    messages = dict(history["status"]["messages"])
    return set(history["prompt"][2]) - set(messages["execution_cached"]["nodes"])
