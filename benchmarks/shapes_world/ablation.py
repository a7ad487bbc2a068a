"""What each setting of a merge is worth, on the development cases: by these tables the defaults are chosen.

    python -m benchmarks.shapes_world.ablation parts roles cycle --cases 8 --pictures 32
    python -m benchmarks.shapes_world.ablation steps --with learning_rate=0.03

Each study varies one thing from the defaults. Prints one line for each variant once it is done, with what it has more
or less than the first variant of its study: cases and pictures are the same, so that difference is far surer than the
numbers themselves.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, get_args

from duolora_core import MergeConfig
from duolora_core.baselines.core_space import dare, ties
from duolora_core.baselines.training_free import null_space
from duolora_core.baselines.zip_lora import ZipLoraConfig

from .cases import Case, cases
from .ceiling import TrueGates
from .judging import Verdict, bootstrap, interval, summarise
from .methods import METHODS, OURS, ZIPLORA, DuoLora, Method, Stack, TrainingFree, ZipLora
from .trials import Outcome, Trial, run_all
from .workbench import PictureSource


def _values(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


REVERSED = "down_blocks.1=content, up_blocks.1=content, down_blocks.2=style, mid_block=style, up_blocks.0=style"
CONTENT_EVERYWHERE = "down_blocks=content, mid_block=content, up_blocks=content"

DUOLORA: Mapping[str, list[dict[str, Any]]] = {
    "default": [{}],
    "parts": [  # each part of DuoLoRA by itself, and all together
        {},
        {"basis": "factors"},
        {"initialisation": "random"},
        {"layer_prior_weight": 1.0},
        {"cycle_weight": 0.01},
        {"initialisation": "random", "layer_prior_weight": 1.0, "cycle_weight": 0.01},
    ],
    "initialisation": [{}]
    + _values("initialisation", "random", "strongest")
    + [{"initialisation": kind, "content_threshold": 0.5} for kind in ("random", "strongest")],
    "layer_prior": [
        {"layer_prior_weight": 0.0},
        *({"layer_prior_weight": 1.0, "layer_prior": name} for name in ("resolution", "b_lora_aware", "authors_code")),
    ],
    "layer_prior_weight": _values("layer_prior_weight", 0.0, 0.1, 0.3, 1.0, 3.0),
    "roles": [  # the control: the same shrinkage under wrong roles, and under none
        {"layer_prior_weight": 0.0},
        {"layer_prior_weight": 1.0},
        {"layer_prior_weight": 1.0, "layer_prior": REVERSED},
        {"layer_prior_weight": 1.0, "layer_prior": CONTENT_EVERYWHERE},
    ],
    "prior_form": [
        {"layer_prior_weight": 1.0, "prior_form": form, "sparsity": sparsity, "rank_weight": rank}
        for form, sparsity, rank in (
            ("diagonal", 0.1, 2.0), ("diagonal", 0.0, 2.0), ("diagonal", 0.3, 2.0), ("diagonal", 1.0, 1.0),
            ("vector", 0.1, 2.0), ("vector", 1.0, 1.0),
        )
    ],
    "cycle": [  # the control: what the cycle costs, spent on more steps
        {"cycle_weight": 0.0},
        *({"cycle_weight": weight} for weight in (0.01, 0.1, 1.0)),
        *({"cycle_weight": weight, "cycle_route": "differentiable"} for weight in (0.1, 1.0)),
        {"cycle_weight": 0.0, "steps": 167},
    ],
    "pool": [{}, *({"pool": pool, "timesteps": "stratified"} for pool in (4, 8, 16, 32))],
    "timesteps": [
        {},
        {"timesteps": "stratified"},
        {"pool": 8},
        {"pool": 8, "timesteps": "stratified"},
    ],
    "fast": [  # each at most a third of the default's work; at 1 / steps the gates can move as far as in the default
        {},
        *(
            {"steps": steps, "pool": pool, "timesteps": "stratified", "learning_rate": rate}
            for steps, pool in ((40, 4), (40, 8), (40, 16), (33, 0)) for rate in (0.01, round(1 / steps, 3))
        ),
    ],
    "learning_rate": [{}, *_values("learning_rate", 0.003, 0.03)],
    "steps": [{}, *_values("steps", 30, 50, 200)],
}  # fmt: skip

STRENGTHS = tuple((a, b) for a in (0.8, 0.9, 1.0, 1.1) for b in (0.8, 0.9, 1.0, 1.1))
"""Of content and style after the merge, for the study of that name."""

OTHERS: Mapping[str, Mapping[str, Method]] = {
    "stack": {f"stack {a} + {b}": Stack(a, b) for a in (1.0, 0.9, 0.8, 0.7) for b in (1.0, 0.9, 0.8, 0.7)},
    "ziplora": {
        f"ZipLoRA {axis}, learning rate {rate}, λ {weight}": ZipLora(
            axis, ZipLoraConfig(learning_rate=rate, similarity_weight=weight)
        )
        for axis in ("output", "input") for rate in (0.01, 0.03) for weight in (0.01, 0.1, 1.0)
    },
    "pictures": {source: DuoLora(source=source) for source in get_args(PictureSource)},
    "strengths": {name: METHODS[name] for name in (*ZIPLORA, OURS)},
    "ceiling": {
        "DuoLoRA": DuoLora(),
        "gates told the answers, 100 steps": TrueGates(),
        "gates told the answers, 400 steps": TrueGates(400, 0.02),
    },
    "free": {
        "NP-LoRA 1/3": TrainingFree(null_space),
        "TIES": TrainingFree(ties, "factors"),
        "DARE": TrainingFree(dare, "factors"),
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=[*DUOLORA, *OTHERS])
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--with", dest="settings", nargs="*", default=[], metavar="NAME=VALUE")
    wanted = parser.parse_args()
    changed = replace(MergeConfig(), **dict(_setting(text) for text in wanted.settings))
    known: dict[tuple[Method, Case], Outcome] = {}  # what several studies try is tried once
    for study in wanted.studies:
        _say(f"# {study} {' '.join(wanted.settings)}  ({wanted.cases} cases of {wanted.pictures} pictures)")
        if study == "strengths":
            _run(OTHERS[study], wanted.cases, wanted.pictures, {}, STRENGTHS)
        elif study in OTHERS:
            _run(OTHERS[study], wanted.cases, wanted.pictures, known)
        else:
            methods = {_name(each): DuoLora(replace(changed, **each)) for each in DUOLORA[study]}
            _run(methods, wanted.cases, wanted.pictures, known)


def _run(
    methods: Mapping[str, Method],
    count: int,
    pictures: int,
    known: dict[tuple[Method, Case], Outcome],
    strengths: tuple[tuple[float, float], ...] = (),
) -> None:
    dev = cases("dev", count)
    new = [
        Trial(name, method, case, pictures, strengths)
        for name, method in methods.items()
        for case in dev
        if (method, case) not in known
    ]
    waiting, first = list(methods), list[Verdict]()
    for outcome in chain([None], run_all(new)):
        if outcome is not None:
            known[methods[outcome.name], outcome.case] = outcome
        while waiting and all((methods[waiting[0]], case) in known for case in dev):
            name = waiting.pop(0)
            row = [known[methods[name], case] for case in dev]
            seconds = sum(each.seconds for each in row) / len(row)
            for i, where in enumerate(["", *(f" at {content} + {style}" for content, style in strengths)]):
                verdicts = [each.verdicts[i] for each in row]
                first = first or verdicts
                _say(f"{_line(verdicts, first)}  {seconds:4.1f} s  {name}{where}")


def _line(verdicts: Sequence[Verdict], first: Sequence[Verdict]) -> str:
    it = summarise(verdicts)
    line = (
        f"harmonic {it.harmonic:.3f} [{it.interval[0]:.3f}, {it.interval[1]:.3f}]  content {it.content:.3f}  "
        f"style {it.style:.3f}  both {it.both:.3f}  leak {it.leak:.3f}"
    )
    if verdicts[0].seen.shape != first[0].seen.shape:  # other strengths are judged on fewer pictures
        return line
    more = it.harmonic - summarise(first, draws=1).harmonic
    low, high = interval(bootstrap(verdicts)[0] - bootstrap(first)[0])
    return f"{line}  {more:+.3f} [{low:+.3f}, {high:+.3f}]"


def _name(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items()) or "default"


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
