"""Two, three and four contents in one style by one LoRA (section 3.5 of arXiv 2504.13206), asked for one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.workers import side_by_side
from duolora_core import MergeConfig, MergedLora, combine, make_merged, open_gates

from .cases import Case
from .judging import judge
from .names import CONTENTS, STYLES, Split, labels
from .trials import SEED, paint_with
from .workbench import Workbench, open_workbench

WAYS = ("stacked", "DuoLoRA, weights 1/n", "DuoLoRA, weights 1")


@dataclass(frozen=True)
class Together:
    """So many contents in one LoRA: accuracies over all of their prompts."""

    way: str
    concepts: int
    content: float
    style: float
    harmonic: float


def together(split: Split, pictures: int, styles: int | None = None) -> list[Together]:
    """Means over the styles of a split; `pictures` for each content."""
    chosen: list[tuple[Split, int, int]] = [(split, style, pictures) for style in labels(STYLES, split)[:styles]]
    found = [row for _, rows in side_by_side(_in_one_style, chosen) for row in rows]
    means: list[Together] = []
    for way in WAYS:
        for concepts in sorted({row.concepts for row in found}):
            rows = [row for row in found if (row.way, row.concepts) == (way, concepts)]
            numbers = torch.tensor([(row.content, row.style, row.harmonic) for row in rows]).mean(0).tolist()
            means.append(Together(way, concepts, *numbers))
    return means


def _in_one_style(asked: tuple[Split, int, int]) -> list[Together]:
    split, style, pictures = asked
    bench = open_workbench()
    cases = [Case(content, style) for content in labels(CONTENTS, split)]
    plain = [_opened(bench, case, with_style=case == cases[0]) for case in cases]
    merged = [make_merged(*bench.duolora(case, MergeConfig())) for case in cases]
    rows: list[Together] = []
    for count in range(2, len(cases) + 1):
        each_once, equal = [1.0] * count, [1 / count] * count
        ways = (combine(plain[:count], each_once), combine(merged[:count], equal), combine(merged[:count], each_once))
        rows += [
            _judged(bench, way, count, lora, cases[:count], pictures) for way, lora in zip(WAYS, ways, strict=True)
        ]
    return rows


def _opened(bench: Workbench, case: Case, with_style: bool) -> MergedLora:
    """Both LoRAs as they are; without the style where another merge of the sum has brought it already."""
    pair = bench.pair(case)
    gates = open_gates(pair)
    if not with_style:
        gates.values[~gates.is_content()] = 0.0
    return make_merged(pair, gates)


def _judged(
    bench: Workbench, way: str, concepts: int, merged: MergedLora, cases: Sequence[Case], pictures: int
) -> Together:
    prompts = [case.prompt for case in cases for _ in range(pictures)]
    painted = paint_with(bench.model, merged.fold(), prompts, SEED + cases[0].style)
    verdict = judge(painted, prompts, bench.oracle)
    return Together(way, concepts, verdict.content, verdict.style, verdict.harmonic)
