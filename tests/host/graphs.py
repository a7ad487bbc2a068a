"""API graphs that the host tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Graph = dict[str, dict[str, Any]]

NARROW = "narrow.safetensors"
"""The file that stands for the narrow model in a graph, and whose VAE it takes."""


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of an API graph; a link is written ["node id", output index]."""
    return {"class_type": class_type, "inputs": inputs}


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
