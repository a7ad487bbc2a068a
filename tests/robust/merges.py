"""A hundred merges in one server process: what it holds in memory may not grow.

    python -m robust.merges            (from the folder `tests`, with the repository's root on PYTHONPATH)

Every merge is another one (seed, and one of eight kinds of settings in turn), queued as the page queues it. After each,
a graph of the loaders alone lets the host drop what it has cached of the merge, and its process is looked at. The
slopes are those of Theil and Sen: the median over all pairs of merges, which a single jump does not move.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host.comfy_host import ComfyServer
from host.graphs import NARROW, Graph, give_colours, node, zipped
from host.hosts import Host, find_hosts
from host.merge_graphs import add_merge, add_save, apply_and_paint, models_only
from host.narrow import CONTENT, STYLE, give_narrow_model

TESTS = Path(__file__).resolve().parents[1]
MB = 1e6
WARMING = 20
"""Merges after which everything has run that is loaded or compiled once; slopes are taken over those that follow."""

BOUNDS = {
    "resident": 1.0 * MB,
    "tensor_bytes": 0.01 * MB,
    "blocks": 300.0,
    "objects": 50.0,
    "tensors": 1.0,
    "patchers": 0.1,
    "modules": 1.0,
}
"""The most that each measure may rise per merge. A merge that stayed would be 4 MB, 5,000 objects and 900 tensors.

Resident memory is the allocator's: it moves in steps of some 25 MB, a few in a hundred merges, so its bound is wide and
that of the tensors' own bytes is narrow. The host leaves a few weak references for every load of a model. Python's
blocks, some 30 bytes each, show what is no object of the garbage collector: safetensors 0.8's own reader leaves one
behind for every dimension of every tensor, which was 1,650 a merge.
"""

SETTINGS: tuple[dict[str, Any], ...] = (
    {"options": {"own_pictures_cfg": 1.0}},
    {"colours": True, "cycle_weight": 0.0, "layer_prior": "none"},
    {"colours": True, "options": {"memory_plan": "as set here", "gradient_checkpointing": True, "micro_batch": 1}},
    {"colours": True, "zip": True},
    {"colours": True, "options": {"pool": 2, "timesteps": "stratified"}, "steps": 4},
    {"colours": True, "options": {"sample_every": 2}},
    {"colours": True, "options": {"compute_dtype": "bf16", "basis": "factors", "initialisation": "random"}},
    {"colours": True, "options": {"preset": "authors_code"}},
)


@dataclass
class Record:
    """What the process held after each merge, and what is wrong with it."""

    held: list[dict[str, Any]] = field(default_factory=list)

    def slopes(self) -> dict[str, float]:
        """{measure: rise per merge}."""
        return {name: slope([each[name] for each in self.held[WARMING:]]) for name in BOUNDS}

    def failures(self) -> list[str]:
        """Each in words."""
        found = [
            f"{name} rises by {rise:.3g} per merge, more than {BOUNDS[name]:g}"
            for name, rise in self.slopes().items()
            if rise > BOUNDS[name]
        ]
        start, end = self.held[WARMING], self.held[-1]
        for name in ("threads", "files"):
            found += [f"{name} left: {each}" for each in _more(start[name], end[name])]
        if end["cached"] > start["cached"]:
            found.append(f"the pack's caches grew from {start['cached']} to {end['cached']} entries")
        return found


def run(count: int = 100) -> dict[str, Any]:
    """{"run": merges, "slope_mb_per_merge": resident memory's, "failed": n, …} on the newest host of this machine."""
    host = max(find_hosts(), key=lambda host: [int(part) for part in host.version.split(".")])
    record = merges_in(host, count)
    for failure in record.failures():
        sys.stdout.write(f"ComfyUI {host.version}: {failure}\n")
    slopes = record.slopes()
    return {
        "run": len(record.held),
        "slope_mb_per_merge": round(slopes["resident"] / MB, 4),
        "bound_mb_per_merge": BOUNDS["resident"] / MB,
        "tensor_mb_per_merge": round(slopes["tensor_bytes"] / MB, 4),
        "blocks_per_merge": slopes["blocks"],
        "objects_per_merge": slopes["objects"],
        "failed": len(record.failures()),
    }


def merges_in(host: Host, count: int) -> Record:
    """Runs the merges in one server."""
    flags = ("--cache-classic",) if "--cache-ram" in (host.path / "comfy" / "cli_args.py").read_text() else ()
    fixtures = TESTS / "host" / "fixtures_pack"
    record = Record()
    with ComfyServer(host, TESTS.parent, fixtures, (*flags, "--preview-method", "latent2rgb")) as server:
        give_narrow_model(host, server.base)
        for number, settings in zip(range(count), itertools.cycle(SETTINGS), strict=False):
            server.run(merge(number, **settings), 300)
            for saved in server.loras.rglob("many_*"):
                saved.unlink()
            idle = models_only(NARROW) | {"probe": node("DuoLoRATestMemoryProbe")}
            idle["keep"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0])
            history = server.run(idle)
            record.held.append(json.loads(server.texts(history)["probe"][0]))
            server.forget()
    return record


def merge(
    number: int, *, colours: bool = False, zip: bool = False, options: Mapping[str, Any] | None = None, **inputs: Any
) -> Graph:
    """One merge, applied, painted with, and now and then saved and reported."""
    graph = add_merge(models_only(NARROW), CONTENT, STYLE, seed=1000 + number, options=dict(options or {}), **inputs)
    if zip:
        return give_colours(zipped(graph))
    graph = give_colours(graph) if colours else graph
    if number % 4 == 1:
        graph["report"] = node("DuoLoRAMergeReport", merged=["merge", 0])
        graph["shown"] = node("PreviewImage", images=["report", 0])
        return apply_and_paint(graph, ["merge", 0])
    return add_save(graph, ["merge", 0], "many", what="masks only" if number % 2 else "LoRA")


def slope(values: Sequence[float]) -> float:
    """Theil and Sen's: the median of all slopes between two of the values, which are at equal distances."""
    pairs = itertools.combinations(enumerate(values), 2)
    return statistics.median((later - earlier) / (j - i) for (i, earlier), (j, later) in pairs)


def _more(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What is in the second list more often than in the first."""
    left = list(before)
    return [each for each in after if each not in left or left.remove(each)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run()) + "\n")
