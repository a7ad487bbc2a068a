"""Every flow and every planted mistake in each ComfyUI of this machine; the last line says what came of it, as JSON.

make test-card

Ends with 1 if a real card would have refused something, if a step lets the host wait too often, if it launches too many
kernels, or if a planted mistake was not found; with 2 if there is no ComfyUI.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.kernels import LORA_SETS, step_kernels
from host.card.flows import flows
from host.card.plants import plants
from host.card.running import run_flows, streams
from host.hosts import HOW_TO_ENABLE, Host, find_hosts

SIDE_BY_SIDE = 2
MOST_KERNELS = 12_000
"""Of a default step on SDXL at its full size, with the LoRAs of the paper: 560 attention layers, ranks 64 and 64."""


@dataclass(frozen=True)
class HostResult:
    """What one ComfyUI showed: of each flow what `running.run_flows` says, and each mistake that was found or not."""

    host: Host
    flows: list[dict[str, Any]]
    planted: dict[str, bool]
    seconds: float


def in_one_host(host: Host) -> HostResult:
    started = time.monotonic()
    chosen, mistakes = flows(), plants(streams(host))
    found = run_flows(host, chosen, mistakes)
    ran, planted = found[: len(chosen)], found[len(chosen) :]
    caught = {
        plant.name: any(plant.told in wrong for wrong in each["wrong"])
        for plant, each in zip(mistakes, planted, strict=True)
    }
    return HostResult(host, ran, caught, time.monotonic() - started)


def told(result: HostResult) -> list[str]:
    """One line for each flow and mistake."""
    lines = [f"ComfyUI {result.host.version}: {len(result.flows)} flows in {result.seconds:.0f} s"]
    for each in result.flows:
        lines.append(f"  {each['name']}: {each['kernels']} kernels and {each['syncs']} syncs a step")
        lines += [f"    WRONG: {wrong}" for wrong in each["wrong"]]
    lines += [f"  {name}: {'found' if caught else 'NOT FOUND'}" for name, caught in result.planted.items()]
    return lines


def main() -> int:
    hosts = find_hosts()
    if not hosts:
        print(f"the flows run inside ComfyUI. {HOW_TO_ENABLE}", file=sys.stderr)  # noqa: T201
        return 2
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = list(pool.map(in_one_host, hosts))
    for result in results:
        print("\n".join(told(result)))  # noqa: T201
    every = [flow for result in results for flow in result.flows]
    kernels = step_kernels(LORA_SETS["attention"]).total()
    missed = sum(not caught for result in results for caught in result.planted.values())
    summary = {
        "flows": len(every),
        "hosts": len(hosts),
        "mixed": sum(len(flow["faults"]) for flow in every),
        "planted_faults_caught": len({name for result in results for name, caught in result.planted.items() if caught}),
        "syncs_a_step": max(flow["syncs"] for flow in every),
        "kernels_a_step": kernels,
        "failed": sum(bool(flow["wrong"]) for flow in every) + missed + (kernels > MOST_KERNELS),
    }
    print(json.dumps(summary))  # noqa: T201
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
