"""What an artist does with a card, as graphs on the narrow model: each in one setting of host and checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from host.card.checkpoints import file_name
from host.card.settings import HostSettings
from host.graphs import Graph, give_colours, node, ours, score_graph, zipped
from host.merge_graphs import CONTENT_PROMPT, STYLE_PROMPT, add_merge, apply_and_paint
from host.narrow import CONTENT, DORA, STYLE

STEPS = 3
"""Of each training; no sampling here has as many, so that a progress bar tells them apart."""


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
        Flow("Score", score_graph, trains=False),
        Flow("Score", score_graph, settings=HostSettings("LOW_VRAM", on_card=True), trains=False),
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


def picture(width: int = 64, height: int = 64) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=1, color=0x8040C0)


def with_pictures(options: dict[str, Any] | None = None) -> Graph:
    return give_colours(merge(options))


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
    return zipped(with_pictures())


def trainer(kind: str, options: dict[str, Any], **inputs: Any) -> Graph:
    graph = models() | {"picture": picture()}
    quick = {"own_pictures": 1, "own_pictures_steps": 2, "resume": False}
    graph["options"] = ours("TrainOptions", **quick | options)
    links = {"model": ["checkpoint", 0], "clip": ["clip", 0], "vae": ["checkpoint", 2], "options": ["options", 0]}
    graph["train"] = ours(kind, **links, **{"steps": STEPS, "rank": 4, "resolution": 64} | inputs)
    graph["info"] = node("PreviewAny", source=["train", 6])
    return graph


def concept(options: dict[str, Any] | None = None, **inputs: Any) -> Graph:
    given: dict[str, Any] = {"pictures": ["picture", 0], "prompt": CONTENT_PROMPT}
    return trainer("TrainConceptLoRA", options or {}, **given | inputs)


def class_prior() -> Graph:
    return concept(class_prompt="a photo of a dog")


def b_lora() -> Graph:
    return concept({"coverage": "transformers"}, role="both (B-LoRA)")


def unzip(options: dict[str, Any] | None = None) -> Graph:
    prompts = {"prompt": "a sks dog in wtrclr style", "content_prompt": "a sks dog", "style_prompt": STYLE_PROMPT}
    return trainer("UnZipImage", options or {}, picture=["picture", 0], **prompts)


def unzip_sampled() -> Graph:
    return unzip({"sample_every": STEPS})
