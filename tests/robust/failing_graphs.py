"""The graphs that are made to fail, by the names of `host.fault_sites`."""

from __future__ import annotations

from host.fault_sites import GIVEN, OWN, SCORE, USE, ZIP
from host.graphs import Graph, node, text_to_image
from host.merge_graphs import CONTENT, STYLE, add_loaders, add_masks, add_merge, add_save, models_only
from robust.small_models import CHECKPOINT, give_colours, loader, zipped

MASKS = "kept_00001.masks.safetensors"


def painting(narrow: bool) -> Graph:
    """A picture without any LoRA, and the node that keeps the models in sight."""
    return kept(text_to_image(CHECKPOINT, size=64), narrow)


def kept(graph: Graph, narrow: bool) -> Graph:
    """With the script's own node, so that checkpoint and CLIP are in every graph and stay loaded."""
    graph["checkpoint"] = loader(narrow)
    return graph | {"keep": node("Keep", model=["checkpoint", 0], clip=["clip", 0], vae=["checkpoint", 2])}


def graphs(narrow: bool) -> dict[str, Graph]:
    """The graphs that are made to fail, by the names of `fault_sites`; first the one whose masks another one uses."""
    models = models_only(CHECKPOINT)
    sampled = {"sample_every": 2, "own_pictures_cfg": 1.0}
    own = add_merge(dict(models), CONTENT, STYLE, options=sampled, cycle_weight=0.0)
    add_save(own, ["merge", 0], "kept", what="masks only")
    own["info"] = node("PreviewAny", source=["merge", 3])
    recomputed = {
        "memory_plan": "as set here",
        "gradient_checkpointing": True,
        "compute_dtype": "bf16",
        "micro_batch": 1,
    }
    given = give_colours(add_merge(dict(models), CONTENT, STYLE, options=recomputed))
    given["info"] = node("PreviewAny", source=["merge", 3])
    zip_lora = give_colours(zipped(add_merge(dict(models), CONTENT, STYLE, options={"memory_plan": "as set here"})))
    zip_lora["info"] = node("PreviewAny", source=["merge", 4])
    every = {OWN: own, GIVEN: given, ZIP: zip_lora, USE: used(), SCORE: scored()}
    return {name: kept(graph, narrow) for name, graph in every.items()}


def used() -> Graph:
    """A merge from its masks: turned, combined, applied, painted with, reported and saved."""
    graph = add_loaders(text_to_image(CHECKPOINT, size=64), CONTENT, STYLE, "pair")
    add_masks(graph, MASKS, "pair")
    graph["probe"] = node(
        "DuoLoRABlockProbe",
        model=["checkpoint", 0],
        clip=["clip", 0],
        merged=["masks", 0],
        blocks="style blocks",
        alpha=0.5,
        elsewhere=1.0,
        lora="both",
        layer_prior="resolution",
        block_names="",
    )
    weights = {f"weight_{i}": 1.0 for i in range(1, 5)}
    graph["both"] = node("DuoLoRACombine", merged_1=["masks", 0], merged_2=["probe", 2], average=True, **weights)
    strengths = {"content_strength": 1.0, "style_strength": 0.5}
    graph["apply"] = node(
        "DuoLoRAApplyMerged", model=["checkpoint", 0], clip=["clip", 0], merged=["both", 0], **strengths
    )
    graph["sampler"]["inputs"]["model"] = ["apply", 0]
    for prompt in ("positive", "negative"):
        graph[prompt]["inputs"]["clip"] = ["apply", 1]
    graph["report"] = node("DuoLoRAMergeReport", merged=["masks", 0])
    return add_save(graph, ["both", 0], "faults/saved")


def scored() -> Graph:
    """Score Merge with all that it can measure."""
    graph = models_only(CHECKPOINT)
    graph["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0xFF0000)
    graph["vision"] = node("DuoLoRATestTinyVision", kind="bigG")
    pictures = {name: ["picture", 0] for name in ("images", "content_images", "style_images")}
    graph["score"] = node(
        "DuoLoRAScoreMerge", clip_vision=["vision", 0], clip=["clip", 0], prompt="a red square", **pictures
    )
    return graph
