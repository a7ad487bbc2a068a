"""API graphs that the host tests share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Graph = dict[str, dict[str, Any]]

NARROW = "narrow.safetensors"
"""The file that stands for the narrow model in a graph, and whose VAE it takes."""


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of an API graph; a link is written ["node id", output index]."""
    return {"class_type": class_type, "inputs": inputs}


SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))


def ours(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One of our nodes, with its own default for every widget that is not given."""
    rows = SCHEMA[f"DuoLoRA{class_type}"]["inputs"]
    return node(f"DuoLoRA{class_type}", **{row["name"]: row["default"] for row in rows if "default" in row} | inputs)


def checkpoint_loader(name: str) -> dict[str, Any]:
    """Core's, or for the narrow model, which core would not recognise, that of the fixtures pack."""
    return node("DuoLoRATestNarrowSDXL" if name == NARROW else "CheckpointLoaderSimple", ckpt_name=name)


def ksampler(model: list[Any], *, seed: int, steps: int, cfg: float) -> dict[str, Any]:
    """Euler from pure noise, between the nodes "positive", "negative" and "latent"."""
    return node(
        "KSampler",
        model=model,
        positive=["positive", 0],
        negative=["negative", 0],
        latent_image=["latent", 0],
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )


def text_to_image(
    checkpoint: str,
    loras: Sequence[tuple[str, float]] = (),
    *,
    positive: str = "a red bicycle",
    negative: str = "",
    seed: int = 1,
    steps: int = 4,
    cfg: float = 2.0,
    size: int = 128,
    prefix: str = "test",
) -> Graph:
    """Checkpoint and tiny CLIP, any number of LoRAs, four sampling steps, a saved picture in node "save"."""
    graph = {
        "checkpoint": checkpoint_loader(checkpoint),
        "clip": node("DuoLoRATestTinyCLIP"),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=1),
    }
    model, clip = ["checkpoint", 0], ["clip", 0]
    for index, (name, strength) in enumerate(loras):
        graph[f"lora{index}"] = node(
            "LoraLoader", model=model, clip=clip, lora_name=name, strength_model=strength, strength_clip=strength
        )
        model, clip = [f"lora{index}", 0], [f"lora{index}", 1]
    graph["positive"] = node("CLIPTextEncode", clip=clip, text=positive)
    graph["negative"] = node("CLIPTextEncode", clip=clip, text=negative)
    graph["sampler"] = ksampler(model, seed=seed, steps=steps, cfg=cfg)
    graph["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["checkpoint", 2])
    graph["save"] = node("SaveImage", images=["decode", 0], filename_prefix=prefix)
    return graph


def give_colours(graph: Graph, name: str = "merge") -> Graph:
    """Pictures of two sizes for the loaders of a merge, from no file, and the checkpoint's VAE."""
    for side, (width, height), colour in (("content", (64, 96), 0x8040C0), ("style", (80, 80), 0x20B060)):
        graph[side] = node("EmptyImage", width=width, height=height, batch_size=1, color=colour)
        graph[f"{name}.{side}"]["inputs"]["pictures"] = [side, 0]
    graph[name]["inputs"]["vae"] = ["checkpoint", 2]
    return graph


def zipped(graph: Graph) -> Graph:
    """A graph with a merge, whose node "merge" becomes ZipLoRA's, and its info that of ZipLoRA."""
    taken = ("model", "clip", "vae", "content", "style", "steps", "seed", "resolution", "options")
    given = graph["merge"]["inputs"]
    inputs = {name: given[name] for name in taken if name in given}
    graph["merge"] = ours("BaselineMerge", method="ZipLoRA", **inputs)
    graph["info"] = node("PreviewAny", source=["merge", 4])
    return graph


def score_graph() -> Graph:
    """Score Merge with all that it can measure, on one colour."""
    graph = {
        "clip": node("DuoLoRATestTinyCLIP"),
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0xFF0000),
        "vision": node("DuoLoRATestTinyVision", kind="bigG"),
    }
    pictures = {name: ["picture", 0] for name in ("images", "content_images", "style_images")}
    graph["score"] = node(
        "DuoLoRAScoreMerge", clip_vision=["vision", 0], clip=["clip", 0], prompt="a red square", **pictures
    )
    return graph
