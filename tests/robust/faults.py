"""Faults at every stage of a merge in real ComfyUI, and what they leave behind: nothing.

    python -m robust.faults            (from the folder `tests`, with the repository's root on PYTHONPATH)

In each host, one process after the other: a fresh one paints pictures; then another lets graphs of a merge, of ZipLoRA,
of a merge's use and of Score Merge fail at chosen calls, by Cancel, an exception, memory that runs out and networks
that overflow. After each fault the models, the host's patchers, random numbers, modes, threads and files must be what
they were; in between and in the end it must paint the fresh process's pictures, pixel for pixel.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from host.checkpoint_cache import tiny_checkpoint
from host.comfy_host import lay_out_base
from host.fault_sites import GIVEN, OWN, SCORE, USE, ZIP
from host.graphs import Graph, node, text_to_image
from host.hosts import Host, find_hosts
from host.lora_samples import attention_linears, load_layers, make_lora, text_layers
from host.merge_graphs import CONTENT, STYLE, add_loaders, add_merge, add_save, models_only

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "host" / "faults_inside.py"
CHECKPOINT = "vega.safetensors"
MASKS = "kept_00001.masks.safetensors"
SIDE_BY_SIDE = 2


def run(count: int = 240) -> dict[str, int]:
    """Injects about `count` faults, over all hosts of this machine together; prints each that left something behind."""
    hosts = find_hosts()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = list(
            pool.map(lambda i: faults_in(hosts[i], -(-count // len(hosts)), (i, len(hosts))), range(len(hosts)))
        )
    for host, each in zip(hosts, found, strict=True):
        for failure in each["failures"]:
            sys.stdout.write(f"ComfyUI {host.version}: {failure}\n")
    return {"injected": sum(each["injected"] for each in found), "failed": sum(len(each["failures"]) for each in found)}


def faults_in(
    host: Host, count: int, share: tuple[int, int] = (0, 1), seed: int = 0, narrow: bool = False
) -> dict[str, Any]:
    """What `host/faults_inside.py` says of one host, with a failure more where its pictures are not a fresh process's.

    Args:
        count: how many faults
        narrow: on a narrower UNet, whose merges take a tenth of the time
        share: (i, n): of the combinations of site, graph and kind, those of process i of n
    """
    job = {"graphs": graphs(narrow), "paint": painting(narrow), "seed": seed, "share": share, "paint_every": 10}
    pictures = count // 10 + 3
    with tempfile.TemporaryDirectory(prefix="duolora-faults-") as folder:
        base = Path(folder) / "base"
        prepare(host, base, narrow)
        fresh = inside(host, base, job | {"count": 0, "pictures": pictures})
        found = inside(host, base, job | {"count": count, "pictures": pictures})
    for i, (one, other) in enumerate(zip(fresh["pictures"], found["pictures"], strict=True)):
        if one != other:
            found["failures"].append(f"picture {i} is not that of a fresh process")
    return found


def inside(host: Host, base: Path, job: dict[str, Any]) -> dict[str, Any]:
    """One process of a host."""
    file = base / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    return host.ask(SCRIPT, "--base", base, "--job", file, timeout=900)


def prepare(host: Host, base: Path, narrow: bool) -> None:
    """A base directory with the pack, the tiny checkpoint, two LoRAs and masks of theirs."""
    lay_out_base(base, {"ComfyUI-DuoLoRA": TESTS.parent, "duolora_fixtures": TESTS / "host" / "fixtures_pack"})
    checkpoint = tiny_checkpoint(host, "vega")
    (base / "models" / "checkpoints" / CHECKPOINT).symlink_to(checkpoint)
    layers = load_layers(checkpoint.with_suffix(".layers.json"))
    if narrow:
        layers = [replace(layer, shape=narrowed(layer.shape)) for layer in layers]
    loras = base / "models" / "loras"
    make_lora(loras / CONTENT, attention_linears(layers), rank=8, alpha=4, te_layers=text_layers())
    make_lora(loras / STYLE, layers, "diffusers", rank=4, seed=5)


def narrowed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape in the model that is a fifth as wide; text, sizes and latents stay as they are."""
    return tuple(size // 5 if size % 320 == 0 else size for size in shape)


def painting(narrow: bool) -> Graph:
    """A picture without any LoRA, and the node that keeps the models in sight."""
    return kept(text_to_image(CHECKPOINT, size=64), narrow)


def kept(graph: Graph, narrow: bool) -> Graph:
    """With the script's own node, so that checkpoint and CLIP are in every graph and stay loaded."""
    if narrow:
        graph["checkpoint"] = node("DuoLoRATestNarrowSDXL", ckpt_name=CHECKPOINT)
    return graph | {"keep": node("Keep", model=["checkpoint", 0], clip=["clip", 0], vae=["checkpoint", 2])}


def graphs(narrow: bool) -> dict[str, Graph]:
    """The graphs that are made to fail, by the names of `fault_sites`; first the one whose masks another one uses."""
    models = models_only(CHECKPOINT)
    sampled = {"sample_every": 2, "own_pictures_cfg": 1.0}
    own = add_merge(dict(models), CONTENT, STYLE, options=sampled, cycle_weight=0.0)
    add_save(own, ["merge", 0], "kept", what="masks only")
    recomputed = {
        "memory_plan": "as set here",
        "gradient_checkpointing": True,
        "compute_dtype": "bf16",
        "micro_batch": 1,
    }
    given = give_colours(add_merge(dict(models), CONTENT, STYLE, options=recomputed))
    given["info"] = node("PreviewAny", source=["merge", 3])
    every = {OWN: own, GIVEN: given, ZIP: zipped(), USE: used(), SCORE: scored()}
    return {name: kept(graph, narrow) for name, graph in every.items()}


def give_colours(graph: Graph, name: str = "merge") -> Graph:
    """Pictures of two sizes for the loaders of a merge, from no file."""
    for side, (width, height), colour in (("content", (64, 96), 0x8040C0), ("style", (80, 80), 0x20B060)):
        graph[side] = node("EmptyImage", width=width, height=height, batch_size=1, color=colour)
        graph[f"{name}.{side}"]["inputs"]["pictures"] = [side, 0]
    graph[name]["inputs"]["vae"] = ["checkpoint", 2]
    return graph


def zipped() -> Graph:
    """ZipLoRA on given pictures."""
    graph = add_merge(models_only(CHECKPOINT), CONTENT, STYLE, options={"memory_plan": "as set here"})
    taken = ("model", "clip", "content", "style", "steps", "seed", "resolution", "options")
    inputs = {name: graph["merge"]["inputs"][name] for name in taken}
    graph["merge"] = node("DuoLoRABaselineMerge", method="ZipLoRA", content_strength=1.0, style_strength=1.0, **inputs)
    graph["info"] = node("PreviewAny", source=["merge", 4])
    return give_colours(graph)


def used() -> Graph:
    """A merge from its masks: turned, combined, applied, painted with, reported and saved."""
    graph = add_loaders(text_to_image(CHECKPOINT, size=64), CONTENT, STYLE, "pair")
    pair = {"content": ["pair.content", 0], "style": ["pair.style", 0]}
    graph["masks"] = node("DuoLoRALoadMasks", model=["checkpoint", 0], masks=MASKS, **pair)
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run()) + "\n")
