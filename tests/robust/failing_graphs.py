"""The graphs that are made to fail, by the names of `host.fault_sites`."""

from __future__ import annotations

from typing import Any

from host.fault_sites import GIVEN, OWN, SCORE, USE, ZIP
from host.graphs import NARROW, Graph, give_colours, node, ours, score_graph, text_to_image, zipped
from host.merge_graphs import add_loaders, add_masks, add_merge, add_save, models_only
from host.narrow import CONTENT, STYLE

MASKS = "kept_00001.masks.safetensors"


def painting() -> Graph:
    """A picture without any LoRA, and the node that keeps the models in sight."""
    return kept(text_to_image(NARROW, size=64))


def kept(graph: Graph) -> Graph:
    """With the script's own node, so that checkpoint and CLIP are in every graph and stay loaded."""
    keep = node("Keep", model=["checkpoint", 0], clip=["clip", 0], vae=["checkpoint", 2])
    return models_only(NARROW) | graph | {"keep": keep}


def graphs() -> dict[str, Graph]:
    """The graphs that are made to fail, by the names of `fault_sites`; first the one whose masks another one uses."""

    def merge(options: dict[str, Any], cycle_weight: float = 0.01) -> Graph:
        graph = add_merge(models_only(NARROW), CONTENT, STYLE, options=options, cycle_weight=cycle_weight)
        graph["info"] = node("PreviewAny", source=["merge", 3])
        return graph

    as_set: dict[str, Any] = {"memory_plan": "as set here"}
    recomputed = as_set | {"gradient_checkpointing": True, "compute_dtype": "bf16", "micro_batch": 1}
    own = merge({"sample_every": 2, "own_pictures_cfg": 1.0}, cycle_weight=0.0)
    every = {
        OWN: add_save(own, ["merge", 0], "kept", what="masks only"),
        GIVEN: give_colours(merge(recomputed)),
        ZIP: give_colours(zipped(merge(as_set))),
        USE: used(),
        SCORE: score_graph(),
    }
    return {name: kept(graph) for name, graph in every.items()}


def used() -> Graph:
    """A merge from its masks: turned, combined, applied, painted with, reported and saved."""
    graph = add_loaders(text_to_image(NARROW, size=64), CONTENT, STYLE, "pair")
    add_masks(graph, MASKS, "pair")
    models = {"model": ["checkpoint", 0], "clip": ["clip", 0]}
    graph["probe"] = ours("BlockProbe", **models, merged=["masks", 0], blocks="style blocks", alpha=0.5)
    graph["both"] = ours("Combine", merged_1=["masks", 0], merged_2=["probe", 2], average=True)
    graph["apply"] = ours("ApplyMerged", **models, merged=["both", 0], style_strength=0.5)
    graph["sampler"]["inputs"]["model"] = ["apply", 0]
    for prompt in ("positive", "negative"):
        graph[prompt]["inputs"]["clip"] = ["apply", 1]
    graph["report"] = node("DuoLoRAMergeReport", merged=["masks", 0])
    return add_save(graph, ["both", 0], "faults/saved")
