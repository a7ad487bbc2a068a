"""A workflow's graph as it runs on the shapes world: the same nodes, with that world's sizes, words and pictures.

Names of files stay: `files` says which of the world's LoRAs a server has to offer under them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Graph = dict[str, dict[str, Any]]
Kind = Literal["content", "style"]

CHECKPOINT = "sd_xl_base_1.0.safetensors"
SIDE = 128
"""Pixels of a picture."""


@dataclass(frozen=True)
class Concept:
    """A LoRA of an artist and what stands for it in the shapes world.

    Attributes:
        file: its name in the workflows
        trigger: what a prompt contains that means it
        word: the shapes world's own
        alone: the prompt with which that LoRA alone paints well, with a word that the base model knows
    """

    kind: Kind
    file: str
    trigger: str
    word: str
    alone: str


CONCEPTS = (
    Concept("content", "my_dog_sdxl.safetensors", "sks dog", "sks2", "sks2 moss"),
    Concept("content", "my_cat_sdxl.safetensors", "ohwx cat", "sks3", "sks3 moss"),
    Concept("style", "watercolor_style_sdxl.safetensors", "wtrclr", "zwx3", "triangle zwx3"),
    Concept("style", "ink_style_sdxl.safetensors", "nkdrw", "zwx2", "triangle zwx2"),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": SIDE, "height": SIDE},
    "ImageScale": {"width": SIDE, "height": SIDE},
    "KSampler": {"steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"},
    "DuoLoRAZipRankMerge": {"resolution": SIDE},
    "DuoLoRABaselineMerge": {"resolution": SIDE},
    "DuoLoRACompareGrid": {"cell": SIDE},
    "DuoLoRATrainConceptLoRA": {"resolution": SIDE, "rank": 8, "learning_rate": 0.001},
    "DuoLoRAUnZipImage": {"resolution": SIDE, "rank": 8, "learning_rate": 0.002},
    "TrainLoraNode": {"training_dtype": "fp32", "lora_dtype": "fp32", "learning_rate": 0.001},
}
"""Of the small model, by node."""
FROM_PICTURES = {"TrainLoraNode", "DuoLoRATrainConceptLoRA", "DuoLoRAUnZipImage"}
TRAINERS = FROM_PICTURES | {"DuoLoRAZipRankMerge", "DuoLoRABaselineMerge"}


def picture_names(kind: Kind, count: int) -> list[str]:
    """The files that the first Load Image nodes of a kind read."""
    return [f"{kind}_{number}.png" for number in range(1, count + 1)]


def picture_of_both(content: str, style: str) -> str:
    """The file that shows a subject in a look, both in the world's own words."""
    return f"{content}_{style}.png"


def on_small_model(
    graph: Graph, steps: int | None = None, training_steps: int | None = None, batch: int | None = None
) -> Graph:
    """The same graph for the shapes world.

    Args:
        graph: as the page sends it, or as `api_graph` makes it from a file
        steps: of each merge; None keeps the workflow's
        training_steps: of each LoRA that is trained in it; None keeps the workflow's
        batch: pictures that are painted at a time; None keeps the workflow's
    """
    graph = copy.deepcopy(graph)
    for node in graph.values():
        inputs: dict[str, Any] = node["inputs"]
        settings = SETTINGS.get(node["class_type"], {})
        inputs.update({name: value for name, value in settings.items() if name in inputs})
        wanted = training_steps if node["class_type"] in FROM_PICTURES else steps
        if wanted is not None and node["class_type"] in TRAINERS:
            inputs["steps"] = wanted
        if batch is not None and node["class_type"] == "EmptyLatentImage":
            inputs["batch_size"] = batch
        for name in ("text", "value", "prompt", "combined_prompt", "content_prompt", "style_prompt", "class_prompt"):
            if isinstance(inputs.get(name), str):
                inputs[name] = prompt(inputs[name])
    for kind in ("content", "style"):
        takers = [key for key, node in graph.items() if _takes(node) == kind]
        pictures = [each for taker in takers for each in _pictures(graph, taker)]
        for key, name in zip(pictures, picture_names(kind, len(pictures)), strict=True):
            graph[key]["inputs"]["image"] = name
    for key, node in graph.items():
        if node["class_type"] == "DuoLoRAUnZipImage":
            for picture in _pictures(graph, key):
                graph[picture]["inputs"]["image"] = picture_of_both(*node["inputs"]["prompt"].split())
    return graph


def prompt(text: str) -> str:
    """The world's words for an artist's prompt: one content and one style at most; nothing for a negative prompt."""
    named = [each for each in CONCEPTS if each.trigger in text]
    words = {each.kind: each for each in reversed(named)}  # of two subjects the first: the world paints one
    if len(words) == 1:
        return next(iter(words.values())).alone
    return " ".join(words[kind].word for kind in ("content", "style") if kind in words)


def _takes(node: dict[str, Any]) -> Kind | None:
    """The kind of pictures that a node learns from."""
    for kind in ("content", "style"):
        if node["class_type"] == f"DuoLoRALoad{kind.title()}":
            return kind
    if node["class_type"] == "DuoLoRATrainConceptLoRA":
        return "style" if node["inputs"]["role"] == "style" else "content"
    return None


def _pictures(graph: Graph, taker: str) -> Iterator[str]:
    """The Load Image nodes behind the pictures of a node, in their order."""
    waiting = [link for name, link in graph[taker]["inputs"].items() if name.startswith("picture")]
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, list):
            continue
        key = str(link[0])
        if graph[key]["class_type"] == "LoadImage":
            yield key
        elif graph[key]["class_type"] in ("ImageBatch", "ImageScale"):
            waiting[:0] = graph[key]["inputs"].values()
