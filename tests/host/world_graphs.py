"""API graphs in a world of the benchmarks, and its pictures on their way into and out of the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from host.comfy_host import ComfyServer
from host.graphs import Graph, ksampler, node
from host.merge_graphs import add_merge
from word_world.both import SHAPES, World

SIDE = 128  # pixels of a picture in the host; the world's own pictures are a quarter of it
WHOLE_TIMESTEPS = 10
"""Steps at which the host's "normal" schedule takes whole timesteps (999 / 9 = 111), as the benchmarks' always does."""


def world(weights: Path, of: World = SHAPES) -> Graph:
    """MODEL, CLIP and VAE of a world in node "world"."""
    return {"world": node("DuoLoRATestWorld", world=of.name, weights=str(weights), words=json.dumps(of.tables))}


def add_world_merge(
    graph: Graph, content: str, style: str, prompts: tuple[str, str], combined_prompt: str = "", **settings: Any
) -> Graph:
    """Adds the merge of two LoRA files with a prompt each; the combined prompt is both, if not another one."""
    add_merge(
        graph,
        content,
        style,
        model=["world", 0],
        clip=["world", 1],
        resolution=SIDE,
        combined_prompt=combined_prompt or " ".join(prompts),
        **settings,
    )
    for side, prompt in zip(("content", "style"), prompts, strict=True):
        graph[f"merge.{side}"]["inputs"]["prompt"] = prompt
    return graph


def add_pictures(server: ComfyServer, graph: Graph, name: str, pictures: Tensor) -> tuple[list[Any], Tensor]:
    """Adds pictures (n, 3, 32, 32) in [-1, 1] as one batch: the link to it, and what 8-bit files hold of them."""
    levels = (pictures * 127.5 + 127.5).round().clamp(0, 255)
    last: list[Any] = []
    for i, picture in enumerate(F.interpolate(levels, scale_factor=SIDE // 32, mode="nearest")):
        array = picture.to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(server.base / "input" / f"{name}{i}.png")
        graph[f"{name}{i}"] = node("LoadImage", image=f"{name}{i}.png")
        if last:
            graph[f"{name}{i}.batch"] = node("ImageBatch", image1=last, image2=[f"{name}{i}", 0])
        last = [f"{name}{i}.batch" if last else f"{name}{i}", 0]
    return last, levels / 127.5 - 1


def give_pictures(server: ComfyServer, graph: Graph, side: str, pictures: Tensor) -> Tensor:
    """Connects pictures (n, 3, 32, 32) in [-1, 1] to one loader; returns them as 8-bit files hold them."""
    link, held = add_pictures(server, graph, side, pictures)
    graph[f"merge.{side}"]["inputs"]["pictures"] = link
    graph["merge"]["inputs"]["vae"] = ["world", 2]
    return held


def add_sampling(
    graph: Graph, prompt: str, *, model: list[Any], seed: int, steps: int, cfg: float, count: int
) -> Graph:
    """Adds KSampler (node "sampler") and SaveImage (node "save") for `count` pictures of one prompt."""
    graph["positive"] = node("CLIPTextEncode", clip=["world", 1], text=prompt)
    graph["negative"] = node("CLIPTextEncode", clip=["world", 1], text="")
    graph["latent"] = node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=count)
    graph["sampler"] = ksampler(model, seed=seed, steps=steps, cfg=cfg)
    graph["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["world", 2])
    graph["save"] = node("SaveImage", images=["decode", 0], filename_prefix="world")
    return graph


def as_the_world_paints(images: list[np.ndarray], size: int = 32) -> Tensor:
    """The host's pictures (128, 128, 3) uint8 as (n, 3, size, size) in [-1, 1]."""
    pictures = torch.stack([torch.from_numpy(image.copy()) for image in images]).movedim(-1, 1)
    return F.avg_pool2d(pictures.float(), SIDE // size) / 127.5 - 1
