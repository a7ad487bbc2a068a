"""The FLOPs of all contestants at one size of picture, and their ratios."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.speed.flops import evaluations, limit_flops, meta_task, prices, step_flops
from duolora_core import PRESETS
from duolora_core.model.memory.estimate import CHECKPOINTED_LEVELS


def ratios(pixels: int) -> dict[str, Any]:
    """The ratios of one size, and a line that tells what they are made of."""
    task = meta_task(pixels)
    saving = replace(task, checkpointing="all")
    limit, price = limit_flops(task), prices(task)
    by_mode = {mode: prices(replace(task, checkpointing=mode)) for mode in CHECKPOINTED_LEVELS}
    lean, runs = by_mode["all"], {preset: evaluations(PRESETS[preset]) for preset in ("default", "fast")}
    exact, exact_saving = step_flops("exact", task), 6 * lean.teacher + 2 * lean.student
    authors, ziplora = step_flops("authors", saving), step_flops("ziplora", saving)
    default, fast = (price.of(run) for run in runs.values())
    return {
        "line": f"{pixels} px: limit {limit / 1e12:.2f} TFLOP a step, exact {exact / 1e12:.2f}, exact checkpointed "
        f"{exact_saving / 1e12:.2f}, authors {authors / 1e12:.2f}, ZipLoRA {ziplora / 1e12:.2f}; a teacher "
        f"{price.teacher / 1e12:.2f}, a student {price.student / 1e12:.2f}, checkpointed {lean.student / 1e12:.2f}; "
        f"whole runs: default {default / 1e15:.2f} PFLOP, fast {fast / 1e15:.2f}",
        "flops_over_limit": exact / limit,
        "checkpointed_over_exact_flops": exact_saving / exact,
        "checkpointed_over_default_flops": {m: p.of(runs["default"]) / default for m, p in by_mode.items()},
        "checkpointed_over_fast_flops": {m: p.of(runs["fast"]) / fast for m, p in by_mode.items()},
        "authors_over_exact_flops": authors / exact,
        "authors_over_checkpointed_flops": authors / exact_saving,
        "ziplora_over_exact_flops": ziplora / exact,
        "authors_over_default_flops": PRESETS["default"].steps * authors / default,
        "exact_over_fast_flops": default / fast,
    }
