"""What a merge costs, counted on SDXL's real structure and measured beside the authors' and ZipLoRA's own steps.

    python -m benchmarks.speed                       # all sections, under ten minutes on two cores
    python -m benchmarks.speed --only flops memory

Sections: `flops` (counted, no values needed), `memory` and `kernels` (counted too, on the meta device), `wall` (on the
CPU, a model of SDXL's structure at a quarter of its widths), `stages` (reading, folding and saving two LoRAs). The last
line is JSON:

An exact step has all losses of the method, as the authors' has.

- flops_over_limit: an exact step over the adapter-free limit, see `flops.limit_flops`
- checkpointed_over_exact_flops: the same step with gradient checkpointing over it without
- authors_over_exact_flops, ziplora_over_exact_flops: their steps as they are run, checkpointed, over our exact step
- authors_over_checkpointed_flops: when ours is checkpointed too
- authors_over_default_flops: a hundred of their steps over our default, which leaves the cycle and the prior out
- exact_over_fast_flops: whole runs of the presets `default` and `fast`
- wall_authors_over_exact, wall_ziplora_over_exact: seconds per step, medians, by the pixels that the model stands for
- peak_memory_over_authors: the peak of what a step allocates at 1024 px in bf16, LoRAs included and the UNet's frozen
  weights not: `checkpointed` both, `plain` neither; `with_weights`: checkpointed, with those weights on both sides
- kernels_a_step: kernels that a default step starts, with LoRAs on attention and on all transformer linears
- load_fold_save_s: seconds from two files to a merged one
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmarks.ldm_unet import UNetConfig
from benchmarks.random_sdxl import UNetDenoiser, random_pair, random_unet
from benchmarks.speed.contestants import Task
from benchmarks.speed.counts import ratios
from benchmarks.speed.flops import meta_task, step_flops
from benchmarks.speed.kernels import LORA_SETS, step_kernels
from benchmarks.speed.memory import step_peak_bytes
from benchmarks.speed.stages import load_fold_save_seconds
from benchmarks.speed.wall import step_seconds
from benchmarks.workers import side_by_side

PIXELS = (512, 768, 1024)
THREADS = 2
QUARTER = UNetConfig(
    channels=80,
    down_depths=((0, 0), (1, 1), (4, 4)),
    mid_depth=4,
    up_depths=((0, 0, 0), (1, 1, 1), (4, 4, 4)),
    context=512,
    pooled=704,
    head=32,
    groups=16,
)
"""SDXL at a quarter of its widths. With a quarter of the rank and of the tokens a layer's ratios of FLOPs are those of
SDXL at twice the pixels. Less than half as deep, so the convolutions, which all methods share, weigh more."""
QUARTER_RANK = 16
ROUNDS = 3


def flops() -> dict[str, Any]:
    """All counts, by pixels; a process for each size."""
    counted = dict(side_by_side(ratios, PIXELS, THREADS))
    for pixels in PIXELS:
        _say(counted[pixels].pop("line"))
    table = {name: {str(pixels): counted[pixels][name] for pixels in PIXELS} for name in counted[PIXELS[0]]}
    fast = table.pop("exact_over_fast_flops")
    return table | {"exact_over_fast_flops": fast[str(PIXELS[-1])]}


def memory() -> dict[str, Any]:
    """Peaks at 1024 px in bf16, one sample at a time on both sides."""
    plain = meta_task(1024)
    plain = replace(plain, config=replace(plain.config, micro_batch=1))
    saving = replace(plain, checkpointing="all")
    weights = sum(parameter.nbytes for parameter in plain.denoiser.unet.parameters())
    ours, theirs, zipped, ours_plain, theirs_plain = (
        step_peak_bytes(name, task)
        for name, task in (
            ("exact", saving),
            ("authors", saving),
            ("ziplora", saving),
            ("exact", plain),
            ("authors", plain),
        )
    )
    _say(
        f"1024 px beside {weights / 1e9:.2f} GB of weights: checkpointed exact {ours / 1e9:.2f} GB, authors "
        f"{theirs / 1e9:.2f}, ZipLoRA {zipped / 1e9:.2f}; plain exact {ours_plain / 1e9:.2f}, authors "
        f"{theirs_plain / 1e9:.2f}"
    )
    return {
        "peak_memory_over_authors": {
            "checkpointed": ours / theirs,
            "plain": ours_plain / theirs_plain,
            "with_weights": (ours + weights) / (theirs + weights),
        },
        "peak_memory_over_ziplora": ours / zipped,
    }


def kernels() -> dict[str, Any]:
    """What a default step starts at 1024 px; the size of a picture does not change it."""
    totals = {name: step_kernels(loras).total() for name, loras in LORA_SETS.items()}
    _say(f"kernels a default step: {totals}")
    return {"kernels_a_step": totals}


def wall() -> dict[str, Any]:
    """Seconds on the CPU. The authors' and ZipLoRA's steps are checkpointed, as they are run; ours is not."""
    torch.set_num_threads(THREADS)
    denoiser = UNetDenoiser(random_unet(QUARTER, torch.float32))
    pair = random_pair(denoiser.layout, QUARTER_RANK)
    authors: dict[str, float] = {}
    ziplora: dict[str, float] = {}
    for pixels in (256, 512):
        task = Task(denoiser, pair, pixels)
        saving = replace(task, checkpointing="all")
        entries = {"exact": ("exact", task), "authors": ("authors", saving), "ziplora": ("ziplora", saving)}
        seconds = step_seconds(entries, ROUNDS)
        key = str(2 * pixels)
        authors[key], ziplora[key] = (seconds[name] / seconds["exact"] for name in ("authors", "ziplora"))
        _say(f"quarter of SDXL at {pixels} px, for {key} px, seconds a step: {_listed(seconds)}; {_counted(pixels)}")
    return {"wall_authors_over_exact": authors, "wall_ziplora_over_exact": ziplora}


def stages() -> dict[str, Any]:
    """From two files to a merged one."""
    return {"load_fold_save_s": load_fold_save_seconds()}


SECTIONS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "flops": flops,
    "memory": memory,
    "kernels": kernels,
    "wall": wall,
    "stages": stages,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    wanted = parser.parse_args()
    result: dict[str, Any] = {}
    for section in wanted.only:
        result |= SECTIONS[section]()
    _say(json.dumps(_rounded(result)))


def _counted(pixels: int) -> str:
    """What the quarter's FLOPs alone would make of it."""
    task = meta_task(pixels, QUARTER_RANK, QUARTER)
    saving, exact = replace(task, checkpointing="all"), step_flops("exact", task)
    authors, ziplora = (step_flops(name, saving) / exact for name in ("authors", "ziplora"))
    return f"FLOPs over exact: authors {authors:.2f}, ziplora {ziplora:.2f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _listed(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
