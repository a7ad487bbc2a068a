"""SDXL at its real size inside a real ComfyUI on the CPU: from two LoRA files to a picture and a merged file.

make test-full

Prints seconds and memory node by node, and in the last line all of it as JSON; ends with 1 if anything is not as it
should be, and with 2 where it cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from benchmarks.real_size.files import sdxl_files
from benchmarks.real_size.graphs import CHECKPOINT, CONTENT, STYLE, core_graph, merge_graph
from benchmarks.real_size.watch import Watch, available
from host.comfy_host import ComfyServer, History
from host.graphs import Graph
from host.hosts import HOW_TO_ENABLE, Host, find_hosts
from host.merge_graphs import with_defaults

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("--fp16-unet",)
NEEDED = {"SDXL": 19.0, "SEGMIND_VEGA": 11.0}
"""GB of memory that must be available, by model."""
MOST_OF_OURS = 4.0
"""GB that the pack may need beside what core needs for the same picture."""
LONGEST = 5400
LAYERS = {"SDXL": 722 + 264, "SEGMIND_VEGA": 170 + 264}
"""Of each LoRA, both text encoders' among them."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Merge two LoRAs on an SDXL checkpoint of real size.")
    parser.add_argument("--model", choices=list(NEEDED), default="SDXL", help="a smaller one for a first look")
    parser.add_argument("--host", help="a version of ComfyUI; the newest found by default")
    wanted = parser.parse_args()
    hosts = [host for host in find_hosts() if wanted.host in (None, host.version)]
    if not hosts:
        print(f"test-full happens inside ComfyUI. {HOW_TO_ENABLE}", file=sys.stderr)  # noqa: T201
        return 2
    if available() < NEEDED[wanted.model]:
        print(  # noqa: T201
            f"test-full needs {NEEDED[wanted.model]:.0f} GB of memory, {available():.1f} are available. Close other "
            "programs.",
            file=sys.stderr,
        )
        return 2
    host = max(hosts, key=lambda each: [int(part) for part in each.version.split(".")])
    try:
        files = sdxl_files(host, wanted.model)
        found, faults = measured(host, files, LAYERS[wanted.model])
    except (OSError, MemoryError) as error:
        print(f"test-full could not be carried through: {error}", file=sys.stderr)  # noqa: T201
        return 2
    for fault in faults:
        print(f"FAILED: {fault}", flush=True)  # noqa: T201
    print(json.dumps({**found, "failed": len(faults)}))  # noqa: T201
    return 1 if faults else 0


def measured(host: Host, files: Path, layers: int) -> tuple[dict[str, Any], list[str]]:
    """What came of all three pictures, and what is not as it should be."""
    faults: list[str] = []
    with started(host, files, ROOT) as server:
        history, ours = watched(server, merge_graph(), "merge")
        (applied,) = pictures(server, history)
        merged = next(server.loras.glob("duolora/merged_*.safetensors"))
        kept = Path(shutil.move(merged, files / "merged.safetensors"))
    with started(host, files, None) as server:
        (server.loras / "merged.safetensors").symlink_to(kept)
        _, cores = watched(server, core_graph([CONTENT, STYLE]), "core")
    with started(host, files, None) as server:
        (server.loras / "merged.safetensors").symlink_to(kept)
        history, _ = watched(server, core_graph(["merged.safetensors"]), "file")
        (loaded,) = pictures(server, history)
    apart = int(np.abs(applied.astype(int) - loaded.astype(int)).max())
    own, most = ours.peak(), cores.peak()
    share = max(own.own - most.own, own.resident - most.resident)
    with safe_open(kept, "np") as file:
        saved = sum(key.endswith(".lora_up.weight") for key in file.keys())  # noqa: SIM118
    if apart:
        faults.append(f"the picture of Apply Merged LoRA and that of the saved file are {apart} of 255 apart")
    if applied.std() < 5:
        faults.append(f"the picture shows nothing: its values have a standard deviation of {applied.std():.1f}")
    if saved != layers:
        faults.append(f"the saved file has {saved} layers instead of {layers}")
    if share > MOST_OF_OURS:
        faults.append(f"the pack needs {share:.1f} GB beside what core needs, more than {MOST_OF_OURS:.0f}")
    return {
        "checkpoint_gb": round((files / "checkpoint.safetensors").stat().st_size / 1e9, 2),
        "lora_layers": saved,
        "seconds": {name: round(phase.seconds, 1) for name, phase in ours.phases.items()},
        "peak_rss_gb": round(own.resident, 2),
        "peak_anonymous_gb": round(own.own, 2),
        "core_peak_rss_gb": round(most.resident, 2),
        "core_peak_anonymous_gb": round(most.own, 2),
        "ours_gb": round(share, 2),
        "apply_against_file": apart,
    }, faults


@contextlib.contextmanager
def started(host: Host, files: Path, pack: Path | None) -> Generator[ComfyServer, None, None]:
    """A fresh ComfyUI with the files under the names of workflow 01, with the pack or without."""
    with ComfyServer(host, pack_root=pack, flags=FLAGS) as server:
        (server.checkpoints / CHECKPOINT).symlink_to(files / "checkpoint.safetensors")
        (server.loras / CONTENT).symlink_to(files / "content.safetensors")
        (server.loras / STYLE).symlink_to(files / "style.safetensors")
        yield server


def watched(server: ComfyServer, graph: Graph, title: str) -> tuple[History, Watch]:
    """Runs a graph and prints what it took, node by node."""
    for each in graph.values():
        each["inputs"] = with_defaults(server, each["class_type"])["inputs"] | each["inputs"]
    running = {"": "idle"} | {key: each["class_type"] for key, each in graph.items()}
    with server.events() as events:

        def now() -> str:
            nodes = [each["data"].get("node") for each in list(events.messages) if each["type"] == "executing"]
            return running.get(nodes[-1] or "", "idle") if nodes else "idle"

        with Watch(server.process.pid, now) as watch:
            try:
                history = server.run(graph, timeout=LONGEST)
            except Exception as error:
                if watch.ended_in is None:
                    raise
                raise MemoryError(f"ended in {watch.ended_in}: the machine was about to run out") from error
            finally:
                table(title, watch)
    return history, watch


def table(title: str, watch: Watch) -> None:
    """One line for each node: seconds, and the most that the process held in GB."""
    print(f"{title:32}{'seconds':>9}{'anonymous':>11}{'mapped':>8}{'resident':>10}")  # noqa: T201
    for name, phase in [*watch.phases.items(), ("whole", watch.peak())]:
        print(  # noqa: T201
            f"{name:32}{phase.seconds:9.1f}{phase.own:11.2f}{phase.mapped:8.2f}{phase.resident:10.2f}", flush=True
        )


def pictures(server: ComfyServer, history: History) -> Sequence[np.ndarray]:
    """What the graph's only Save Image saved."""
    return [picture for node in server.images(history).values() for picture in node][-1:]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    # glibc stops giving freed memory back once it has seen large tensors freed, and keeps it in a heap for each thread.
    # With a fixed threshold each tensor is a mapping of its own, so that what is measured is what is held.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**17))
    sys.exit(main())
