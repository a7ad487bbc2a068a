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
from pathlib import Path
from typing import Any

from host.comfy_host import lay_out_base
from host.hosts import Host, find_hosts
from host.narrow import give_narrow_model
from robust.failing_graphs import graphs, painting

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "host" / "faults_inside.py"
SIDE_BY_SIDE = 2


def run(count: int = 240) -> dict[str, int]:
    """Injects about `count` faults, over all hosts of this machine together; prints each that left something behind."""
    hosts = find_hosts()

    def share(i: int) -> dict[str, Any]:
        return faults_in(hosts[i], -(-count // len(hosts)), (i, len(hosts)))

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = list(pool.map(share, range(len(hosts))))
    for host, each in zip(hosts, found, strict=True):
        for failure in each["failures"]:
            sys.stdout.write(f"ComfyUI {host.version}: {failure}\n")
    return {"injected": sum(each["injected"] for each in found), "failed": sum(len(each["failures"]) for each in found)}


def faults_in(host: Host, count: int, share: tuple[int, int] = (0, 1), seed: int = 0) -> dict[str, Any]:
    """What `host/faults_inside.py` says of one host, with a failure more where its pictures are not a fresh process's.

    Args:
        count: how many faults
        share: (i, n): of the combinations of site, graph and kind, those of process i of n
    """
    job = {"graphs": graphs(), "paint": painting(), "seed": seed, "share": share, "paint_every": 10}
    pictures = count // 10 + 3
    with tempfile.TemporaryDirectory(prefix="duolora-faults-") as folder:
        base = Path(folder) / "base"
        lay_out_base(base, {"ComfyUI-DuoLoRA": TESTS.parent, "duolora_fixtures": TESTS / "host" / "fixtures_pack"})
        give_narrow_model(host, base)
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run()) + "\n")
