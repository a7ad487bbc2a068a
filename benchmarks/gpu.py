"""A training step of full SDXL on a GPU: seconds, peak memory and utilisation, ours beside the authors' and ZipLoRA's.

    python -m benchmarks.gpu --pixels 512 1024

Random weights in bf16, two rank-64 LoRAs on all 560 attention linears. One line per contestant and size; the last line
is JSON. Utilisation is counted FLOPs / seconds / what one large bf16 matrix product reaches on the same device; its
FLOPs are those of the step as it runs, so what checkpointing computes twice counts twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.ldm_unet import SDXL
from benchmarks.random_sdxl import UNetDenoiser, random_pair, random_unet
from benchmarks.speed.contestants import CONTESTANTS, Task
from benchmarks.speed.flops import meta_task, step_flops
from benchmarks.speed.memory import peak_bytes
from benchmarks.speed.wall import finish, step_seconds
from duolora_core.model.memory.estimate import Checkpointing


@dataclass(frozen=True)
class Entry:
    """One way to run a step: a contestant, and what is checkpointed."""

    contestant: str
    checkpointing: Checkpointing


ENTRIES: Mapping[str, Entry] = {
    "exact": Entry("exact", "none"),
    "exact partly checkpointed": Entry("exact", "full and half resolution"),
    "exact checkpointed": Entry("exact", "all"),
    "authors": Entry("authors", "all"),
    "ziplora": Entry("ziplora", "all"),
}
"""The authors' and ZipLoRA's public scripts run checkpointed."""


@dataclass(frozen=True)
class Row:
    """What one step takes. `peak_gb` is the peak of all that is allocated while the contestant runs alone."""

    pixels: int
    entry: str
    seconds: float
    peak_gb: float
    tflop: float
    utilisation: float


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype, size: int, rounds: int = 10) -> float:
    """The best of several products of two (size, size) matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds: list[float] = []
    for _ in range(rounds + 1):  # the first one warms up
        finish(device)
        started = time.perf_counter()
        torch.mm(a, b)
        finish(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])


def measured(task: Task, ceiling: float, rounds: int, entries: Mapping[str, Entry] = ENTRIES) -> list[Row]:
    """One row per entry: seconds in turns with the others, memory alone.

    Args:
        task: at one size, on the device to measure
        ceiling: FLOPs per second that count as full utilisation
    """
    config, rank = task.denoiser.unet.config, max(task.pair.ranks(task.pair.names[0]))
    rows: list[Row] = []
    tasks = {name: replace(task, checkpointing=entry.checkpointing) for name, entry in entries.items()}
    kinds = {name: entry.contestant for name, entry in entries.items()}
    peaks = {name: peak_gb(kinds[name], own) for name, own in tasks.items()}
    seconds = step_seconds({name: (kinds[name], own) for name, own in tasks.items()}, rounds)
    for name, own in tasks.items():
        values = replace(meta_task(own.pixels, rank, config), checkpointing=own.checkpointing, config=own.config)
        flops = step_flops(kinds[name], values)
        rows.append(Row(own.pixels, name, seconds[name], peaks[name], flops / 1e12, flops / seconds[name] / ceiling))
    return rows


def peak_gb(contestant: str, task: Task) -> float:
    """The most that is allocated on the task's device, the model's weights included, over two steps."""
    device = task.denoiser.device

    def two_steps() -> None:
        with CONTESTANTS[contestant](task) as step:
            step()
            step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        two_steps()
        return torch.cuda.max_memory_allocated(device) / 1e9
    weights = sum(parameter.nbytes for parameter in task.denoiser.unet.parameters())
    return (weights + peak_bytes(two_steps, device.type)) / 1e9


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Ratios to our exact step, by pixels, and the rows themselves."""
    by_size: dict[int, dict[str, Row]] = {}
    for row in rows:
        by_size.setdefault(row.pixels, {})[row.entry] = row

    def ratio(of: str, to: str, what: str) -> dict[str, float]:
        return {
            str(pixels): round(getattr(entries[of], what) / getattr(entries[to], what), 3)
            for pixels, entries in by_size.items()
        }

    return {
        "wall_authors_over_exact": ratio("authors", "exact", "seconds"),
        "wall_authors_over_exact_checkpointed": ratio("authors", "exact checkpointed", "seconds"),
        "wall_ziplora_over_exact": ratio("ziplora", "exact", "seconds"),
        "peak_memory_over_authors": ratio("exact checkpointed", "authors", "peak_gb"),
        "seconds_for_100_exact_steps": {
            str(pixels): round(100 * entries["exact"].seconds, 1) for pixels, entries in by_size.items()
        },
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--ceiling-size", type=int, default=8192, help="of the matrices of the ceiling")
    wanted = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and this machine has none; use python -m benchmarks.speed.")
    device = torch.device("cuda")
    ceiling = matmul_flops_per_second(device, torch.bfloat16, wanted.ceiling_size)
    _say(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}: {ceiling / 1e12:.0f} TFLOP/s in bf16")
    denoiser = UNetDenoiser(random_unet(SDXL, torch.bfloat16, "cuda"))
    pair = random_pair(denoiser.layout, wanted.rank, "factors")
    rows: list[Row] = []
    for pixels in wanted.pixels:
        task = Task(denoiser, pair, pixels)
        task = replace(task, config=replace(task.config, micro_batch=wanted.micro_batch))
        for row in measured(task, ceiling, wanted.rounds):
            rows.append(row)
            _say(
                f"{row.pixels} px, {row.entry}: {row.seconds:.3f} s, peak {row.peak_gb:.2f} GB, {row.tflop:.1f} TFLOP, "
                f"utilisation {row.utilisation:.0%}"
            )
    _say(json.dumps({"device": torch.cuda.get_device_name(device), **summary(rows)}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
