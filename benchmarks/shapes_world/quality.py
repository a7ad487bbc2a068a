"""The quality of every method on the held-out cases, from the committed weights.

    python -m benchmarks.shapes_world.quality                         # the whole table, and docs/quality.md
    python -m benchmarks.shapes_world.quality --cases 4 --pictures 16 --table-only --no-report

The last line on stdout is JSON. Everything is computed again: nothing is read but the weights and the pictures' seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.word_concepts import Kind
from benchmarks.workers import side_by_side

from .calibration import Alone, alone, base_accuracies
from .cases import cases
from .concepts import novel_concepts
from .judging import summarise
from .methods import METHODS, OURS, ZIPLORA
from .names import SPLITS, Split
from .quality_report import Findings, write_report
from .several import several_json, together
from .trials import Outcome, Trial, by_name, run_all
from .workbench import open_workbench

STRENGTHS = ((0.7, 1.0), (0.85, 1.0), (1.0, 0.85), (1.0, 0.7), (0.85, 0.85), (1.2, 1.0), (1.0, 1.2), (1.2, 1.2))
FRONTIER = ("stack 1 + 1", *ZIPLORA, OURS)
"""Methods whose strengths stay free after the merge."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="dev: to rehearse, not to report")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--table-only", action="store_true", help="no strengths, no several concepts")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs", help="where quality.md goes")
    parser.add_argument("--no-report", action="store_true", help="leave docs/quality.md as it is")
    wanted = parser.parse_args()
    started = time.perf_counter()

    chosen: Split = wanted.split
    trials = [
        Trial(name, method, case, wanted.pictures, STRENGTHS if name in FRONTIER and not wanted.table_only else ())
        for case in cases(chosen, wanted.cases)
        for name, method in METHODS.items()
    ]
    table = by_name(_watched(trials, started))
    table = {name: table[name] for name in METHODS}  # in the order of the table of methods
    several = [] if wanted.table_only else together(chosen, pictures=16)
    loras = dict(side_by_side(alone, novel_concepts(chosen)))
    base = base_accuracies(open_workbench())
    seconds = time.perf_counter() - started
    findings = Findings(table, STRENGTHS, several, loras, base, wanted.pictures, seconds, chosen)
    if not wanted.no_report:
        write_report(findings, wanted.docs)
    sys.stdout.write(json.dumps(as_json(table, loras) | {"several": several_json(several)}) + "\n")


def as_json(table: Mapping[str, Sequence[Outcome]], loras: Mapping[tuple[Kind, int], Alone]) -> dict[str, Any]:
    """The findings in one line."""
    methods: dict[str, Any] = {}
    for name, outcomes in table.items():
        it = summarise([outcome.verdict for outcome in outcomes])
        methods[name] = {
            "content": round(it.content, 4),
            "style": round(it.style, 4),
            "harmonic": round(it.harmonic, 4),
            "ci": [round(bound, 4) for bound in it.interval],
            "leak": round(it.leak, 4),
            "params": outcomes[0].parameters,
        }
    zip_lora = max(methods[name]["harmonic"] for name in ZIPLORA)
    return {
        "pairs": len(next(iter(table.values()))),
        "methods": methods,
        "duolora_over_ziplora": round(methods[OURS]["harmonic"] / zip_lora, 4) if zip_lora else None,
        "lora_alone": {
            role: round(sum(each.own for (kind, _), each in loras.items() if kind == role) / (len(loras) / 2), 4)
            for role in ("content", "style")
        },
    }


def _watched(trials: Sequence[Trial], started: float) -> list[Outcome]:
    """All outcomes, with a line on stderr for every tenth part."""
    outcomes: list[Outcome] = []
    for outcome in run_all(trials):
        outcomes.append(outcome)
        if len(outcomes) * 10 // len(trials) > (len(outcomes) - 1) * 10 // len(trials):
            minutes = (time.perf_counter() - started) / 60
            sys.stderr.write(f"{len(outcomes)} of {len(trials)} trials, {minutes:.1f} minutes\n")
    return outcomes


if __name__ == "__main__":
    main()
