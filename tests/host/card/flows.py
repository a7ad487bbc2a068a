"""What an artist does with a card, as graphs on the narrow model: each in one setting of host and checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host.card.checkpoints import file_name
from host.card.settings import HostSettings
from host.graphs import Graph, node
from host.merge_graphs import CONTENT_PROMPT, STYLE_PROMPT, add_merge, apply_and_paint
from host.narrow import CONTENT, DORA, STYLE

STEPS = 3
"""Of each training; no sampling here has as many, so that a progress bar tells them apart."""

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[1] / "schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Flow:
    """A graph, and where it runs.

    Attributes:
        weights: the checkpoint file's dtype; "fp8" is the fp16 file loaded with weight_dtype fp8_e4m3fn
        trains: whether it takes STEPS training steps
    """

    name: str
    graph: Callable[[], Graph]
    weights: str = "fp16"
    settings: HostSettings = field(default_factory=HostSettings)
    trains: bool = True


def flows() -> list[Flow]:
    """All of them; each pair of flow, dtype and memory setting that differs in code is here, not every combination."""
    low, high = HostSettings("LOW_VRAM"), HostSettings("HIGH_VRAM")
    on_card, dynamic = HostSettings(on_card=True), HostSettings(dynamic=True)
    bf16, bf16_on_card = HostSettings(bf16=True), HostSettings(bf16=True, on_card=True)
    return [
        Flow("merge of LoRAs alone, painted with", merge_and_paint),
        Flow("merge of LoRAs alone", merge, settings=low),
        Flow("merge of LoRAs alone", merge, "fp8", on_card),
        Flow("merge of LoRAs alone", merge, "bf16", dynamic),
        Flow("merge of a DoRA", of_dora),
        Flow("merge of a DoRA", of_dora, "fp8", low),
        Flow("merge of a DoRA", of_dora, "bf16", dynamic),
        Flow("merge with pictures", with_pictures),
        Flow("merge with pictures", with_pictures, "bf16", bf16),
        Flow("merge with pictures", with_pictures, "fp32", high),
        Flow("merge with pictures", with_pictures, "fp8", HostSettings("LOW_VRAM", on_card=True)),
        Flow("merge with pictures", with_pictures, "fp32", dynamic),
        Flow("merge with pictures, checkpointed", checkpointed),
        Flow("merge with pictures, checkpointed", checkpointed, "fp8", low),
        Flow("merge with pictures, checkpointed", checkpointed, "fp8", dynamic),
        Flow("merge with a pool", pooled, "fp16", high),
        Flow("merge with a pool", pooled, "fp8"),
        Flow("merge with the cycle through the merge", through_the_merge, "bf16", bf16_on_card),
        Flow("merge with the cycle through the merge", through_the_merge, "fp16", low),
        Flow("merge computed in bf16", in_bf16, "fp16"),
        Flow("merge with live samples", sampled, "fp16", on_card),
        Flow("merge with live samples", sampled, "bf16", dynamic),
        Flow("ZipLoRA", zip_lora),
        Flow("ZipLoRA", zip_lora, "fp8", HostSettings("HIGH_VRAM", on_card=True)),
        Flow("ZipLoRA", zip_lora, "fp32", dynamic),
        Flow("Train Concept", concept, "fp16", low),
        Flow("Train Concept", concept, "fp8", on_card),
        Flow("Train Concept", concept, "bf16", dynamic),
        Flow("Train Concept with class pictures", class_prior),
        Flow("Train Concept with class pictures", class_prior, "bf16", HostSettings("HIGH_VRAM", bf16=True)),
        Flow("B-LoRA", b_lora),
        Flow("B-LoRA", b_lora, "fp8", low),
        Flow("UnZip", unzip, "fp16", on_card),
        Flow("UnZip", unzip, "bf16", bf16),
        Flow("UnZip", unzip, "fp32", dynamic),
        Flow("UnZip with live samples", unzip_sampled, "fp8"),
        Flow("Score", scored, trains=False),
        Flow("Score", scored, settings=HostSettings("LOW_VRAM", on_card=True), trains=False),
    ]


def graph_of(flow: Flow) -> Graph:
    """The flow's graph with its checkpoint."""
    graph = flow.graph()
    fp8 = flow.weights == "fp8"
    graph["checkpoint"] = node("CheckpointLoaderSimple", ckpt_name=file_name("fp16" if fp8 else flow.weights))
    if fp8:
        graph["unet"] = node("UNETLoader", unet_name=file_name("fp16"), weight_dtype="fp8_e4m3fn")
        for each in graph.values():
            links = {name: ["unet", 0] for name, value in each["inputs"].items() if value == ["checkpoint", 0]}
            each["inputs"] |= links
    return graph


def models() -> Graph:
    return {"clip": node("DuoLoRATestTinyCLIP")}


def with_defaults(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One of our nodes with its own defaults for every widget that is not given."""
    held: Mapping[str, Any] = {
        each["name"]: each["default"] for each in SCHEMA[class_type]["inputs"] if "default" in each
    }
    return node(class_type, **held | inputs)


def merge(options: dict[str, Any] | None = None, **inputs: Any) -> Graph:
    kept = {"resume": False, "sample_every": 0}
    graph = add_merge(models(), CONTENT, STYLE, steps=STEPS, options=kept | (options or {}), **inputs)
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return graph


def of_dora() -> Graph:
    """Its layers are decomposed on the card, which needs the checkpoint's weights there."""
    graph = merge()
    graph["merge.content"]["inputs"]["lora_name"] = DORA
    return graph


def merge_and_paint() -> Graph:
    graph = apply_and_paint(merge(), ["merge", 0])
    graph["sampler"]["inputs"]["steps"] = 2
    return graph


def give_pictures(graph: Graph) -> Graph:
    """Pictures of two sizes for the loaders of a merge, and the VAE."""
    for side, (width, height) in (("content", (64, 96)), ("style", (80, 80))):
        graph[side] = picture(width, height)
        graph[f"merge.{side}"]["inputs"]["pictures"] = [side, 0]
    graph["merge"]["inputs"]["vae"] = ["checkpoint", 2]
    return graph


def picture(width: int = 64, height: int = 64) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=1, color=0x8040C0)


def with_pictures(options: dict[str, Any] | None = None) -> Graph:
    return give_pictures(merge(options))


def checkpointed() -> Graph:
    return with_pictures({"memory_plan": "as set here", "gradient_checkpointing": True, "micro_batch": 1})


def pooled() -> Graph:
    return with_pictures({"pool": 2, "timesteps": "stratified"})


def through_the_merge() -> Graph:
    return with_pictures({"cycle_route": "differentiable"})


def in_bf16() -> Graph:
    return with_pictures({"compute_dtype": "bf16"})


def sampled() -> Graph:
    return merge({"sample_every": STEPS})


def zip_lora() -> Graph:
    graph = with_pictures()
    taken = ("model", "clip", "vae", "content", "style", "steps", "seed", "resolution", "options")
    inputs = {name: graph["merge"]["inputs"][name] for name in taken}
    graph["merge"] = with_defaults("DuoLoRABaselineMerge", **inputs, method="ZipLoRA")
    graph["info"]["inputs"]["source"] = ["merge", 4]
    return graph


def trainer(kind: str, options: dict[str, Any], **inputs: Any) -> Graph:
    graph = models() | {"picture": picture()}
    quick = {"own_pictures": 1, "own_pictures_steps": 2, "resume": False}
    graph["options"] = with_defaults("DuoLoRATrainOptions", **quick | options)
    links = {"model": ["checkpoint", 0], "clip": ["clip", 0], "vae": ["checkpoint", 2], "options": ["options", 0]}
    graph["train"] = with_defaults(kind, **links, **{"steps": STEPS, "rank": 4, "resolution": 64} | inputs)
    graph["info"] = node("PreviewAny", source=["train", 6])
    return graph


def concept(options: dict[str, Any] | None = None, **inputs: Any) -> Graph:
    given: dict[str, Any] = {"pictures": ["picture", 0], "prompt": CONTENT_PROMPT}
    return trainer("DuoLoRATrainConceptLoRA", options or {}, **given | inputs)


def class_prior() -> Graph:
    return concept(class_prompt="a photo of a dog")


def b_lora() -> Graph:
    return concept({"coverage": "transformers"}, role="both (B-LoRA)")


def unzip(options: dict[str, Any] | None = None) -> Graph:
    prompts = {"prompt": "a sks dog in wtrclr style", "content_prompt": "a sks dog", "style_prompt": STYLE_PROMPT}
    return trainer("DuoLoRAUnZipImage", options or {}, picture=["picture", 0], **prompts)


def unzip_sampled() -> Graph:
    return unzip({"sample_every": STEPS})


def scored() -> Graph:
    graph = models() | {"picture": picture(), "vision": node("DuoLoRATestTinyVision", kind="bigG")}
    pictures = {name: ["picture", 0] for name in ("images", "content_images", "style_images")}
    graph["score"] = node(
        "DuoLoRAScoreMerge", clip_vision=["vision", 0], clip=["clip", 0], prompt="a violet square", **pictures
    )
    return graph
