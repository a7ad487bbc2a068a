"""Lets flows run in a host's own process, and says of each what was wrong with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from host.card.checkpoints import give_models
from host.card.flows import STEPS, Flow, graph_of
from host.card.plants import Plant
from host.comfy_host import lay_out_base
from host.graphs import Graph
from host.hosts import Host

TESTS = Path(__file__).resolve().parents[2]
SCRIPT = TESTS / "host" / "card_inside.py"
MOST_SYNCS = 30
"""A step may let the host wait for the card as often: for its losses, its numbers and a picture, but for no layer."""


def run_flows(host: Host, chosen: Sequence[Flow], plants: Sequence[Plant] = ()) -> list[dict[str, Any]]:
    """What happened in each flow and then in each with a mistake, see `card_inside.py`, with "wrong" added."""
    if not streams(host):
        chosen = [replace(flow, settings=replace(flow.settings, dynamic=False)) for flow in chosen]
    jobs = [job_of(flow) for flow in chosen] + [job_of(each.flow, each.name) for each in plants]
    for seed, job in enumerate(jobs):
        give_seed(job["graph"], seed)
    with tempfile.TemporaryDirectory(prefix="duolora-card-") as folder:
        base = Path(folder) / "base"
        lay_out_base(base, {"ComfyUI-DuoLoRA": TESTS.parent, "duolora_fixtures": TESTS / "host" / "fixtures_pack"})
        give_models(host, base)
        file = base / "job.json"
        file.write_text(json.dumps({"steps": STEPS, "flows": jobs}), encoding="utf-8")
        found: list[dict[str, Any]] = host.ask(SCRIPT, "--base", base, "--job", file, timeout=1800)["flows"]
    trains = [flow.trains for flow in chosen] + [each.flow.trains for each in plants]
    return [each | {"wrong": wrong_with(each, training)} for each, training in zip(found, trains, strict=True)]


def streams(host: Host) -> bool:
    """Whether this ComfyUI can stream weights to the card layer by layer."""
    return "class ModelPatcherDynamic" in (host.path / "comfy" / "model_patcher.py").read_text(encoding="utf-8")


def job_of(flow: Flow, plant: str = "") -> dict[str, Any]:
    settings = asdict(flow.settings)
    of_host = [f"{key}={value}" for key, value in settings.items() if value not in (False, "NORMAL_VRAM")]
    name = ", ".join([flow.name, flow.weights, *of_host])
    return {
        "name": f"{plant}: {name}" if plant else name,
        "graph": graph_of(flow),
        "settings": settings,
        "plant": plant,
    }


def give_seed(graph: Graph, seed: int) -> None:
    """A seed of its own: of equal trainings the pack knows what came out, and does not run the second."""
    for each in graph.values():
        if "seed" in each["inputs"]:
            each["inputs"]["seed"] = seed


def wrong_with(found: dict[str, Any], trains: bool) -> list[str]:
    """Nothing, if the flow would have gone well on a card."""
    told: list[str] = list(found["faults"])
    if found["status"] != "success" and not told:
        told.append(f"{found['status']} {found['message']}")
    if found["syncs"] > MOST_SYNCS:
        told.append(f"{found['syncs']} syncs in a step: {found['waits'][:4]}")
    if trains and not told and found["steps"] != STEPS:
        told.append(f"{found['steps']} training steps instead of {STEPS}")
    return told
