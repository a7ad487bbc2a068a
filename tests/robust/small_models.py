"""The tiny checkpoint, or one a fifth as wide whose merges take a tenth of the time, with a LoRA of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from host.checkpoint_cache import tiny_checkpoint
from host.graphs import Graph, node
from host.hosts import Host
from host.lora_samples import attention_linears, load_layers, make_lora, text_layers
from host.merge_graphs import CONTENT, STYLE
from host.narrow import narrowed

CHECKPOINT = "vega.safetensors"


def give_models(host: Host, base: Path, narrow: bool) -> None:
    """Puts the tiny checkpoint into a base directory, and two LoRAs for it or for the narrow model."""
    checkpoint = tiny_checkpoint(host, "vega")
    (base / "models" / "checkpoints" / CHECKPOINT).symlink_to(checkpoint)
    layers = load_layers(checkpoint.with_suffix(".layers.json"))
    if narrow:
        layers = narrowed(layers)
    loras = base / "models" / "loras"
    make_lora(loras / CONTENT, attention_linears(layers), rank=8, alpha=4, te_layers=text_layers())
    make_lora(loras / STYLE, layers, diffusers=True, rank=4, seed=5)


def loader(narrow: bool) -> dict[str, Any]:
    """The node that loads MODEL and VAE."""
    if narrow:
        return node("DuoLoRATestNarrowSDXL", ckpt_name=CHECKPOINT)
    return node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)


def give_colours(graph: Graph, name: str = "merge") -> Graph:
    """Pictures of two sizes for the loaders of a merge, from no file."""
    for side, (width, height), colour in (("content", (64, 96), 0x8040C0), ("style", (80, 80), 0x20B060)):
        graph[side] = node("EmptyImage", width=width, height=height, batch_size=1, color=colour)
        graph[f"{name}.{side}"]["inputs"]["pictures"] = [side, 0]
    graph[name]["inputs"]["vae"] = ["checkpoint", 2]
    return graph


def zipped(graph: Graph) -> Graph:
    """A graph with a merge, whose node "merge" becomes ZipLoRA's."""
    taken = ("model", "clip", "content", "style", "steps", "seed", "resolution", "options")
    inputs = {name: graph["merge"]["inputs"][name] for name in taken}
    graph["merge"] = node("DuoLoRABaselineMerge", method="ZipLoRA", content_strength=1.0, style_strength=1.0, **inputs)
    return graph
