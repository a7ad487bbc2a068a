"""Several contents in one style, and several styles on one content, by one LoRA; each is asked for by its own word.

python -m benchmarks.shapes_world.several --split dev --pictures 24     # a table, and JSON in the last line
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.workers import side_by_side
from duolora_core import MergeConfig, MergedLora, combine, make_merged, open_gates
from duolora_core.merge.router import with_router

from .cases import Case
from .judging import Verdict, judge, summarise
from .names import CONTENTS, SPLITS, STYLES, Split, labels
from .trials import SEED, paint_with
from .workbench import Workbench, open_workbench

STEPS_PER_LORA = 100
COUNTS = (2, 3, 4)

Labels = tuple[int, ...]
Way = Callable[[Workbench, Labels, Labels], MergedLora]
"""The labels of contents and styles to one LoRA that holds all of them."""


@dataclass(frozen=True)
class Together:
    """So many concepts of one kind with one of the other in one LoRA, over all their prompts and all draws of them.

    Attributes:
        interval: of the harmonic mean, 95 %, over prompts
    """

    way: str
    kind: str
    concepts: int
    content: float
    style: float
    harmonic: float
    interval: tuple[float, float]


def stacked(bench: Workbench, contents: Labels, styles: Labels) -> MergedLora:
    """All LoRAs added, as with as many LoRA loaders."""
    stack = bench.stack(contents, styles)
    return make_merged(stack, open_gates(stack))


def stacked_weaker(bench: Workbench, contents: Labels, styles: Labels) -> MergedLora:
    """The same with the strength of one LoRA shared by those of a side, and 0.8 for the style of several contents."""
    strengths = [1 / len(contents)] * len(contents) + [0.8 / len(styles)] * len(styles)
    return stacked(bench, contents, styles).with_strengths(strengths)


def routed(bench: Workbench, contents: Labels, styles: Labels) -> MergedLora:
    """SSR-Merge's router over the stack, without training."""
    content, style = bench.stack_pictures(contents, styles)
    stack = with_router(bench.denoiser, bench.stack(contents, styles), content, style, MergeConfig(router="on"))
    return make_merged(stack, open_gates(stack))


def combined(bench: Workbench, contents: Labels, styles: Labels) -> MergedLora:
    """Every pair merged by itself, and the merges combined with equal weights (section 3.5 of arXiv 2504.13206)."""
    cases = [Case(content, style) for content in contents for style in styles]
    return combine([_of_pair(case) for case in cases])


@cache
def _of_pair(case: Case) -> MergedLora:
    return make_merged(*open_workbench().duolora(case, MergeConfig()))


def joint(bench: Workbench, contents: Labels, styles: Labels) -> MergedLora:
    """All LoRAs in one merge, as ZipRank Merge trains it."""
    steps = STEPS_PER_LORA * (len(contents) + len(styles))
    return make_merged(*bench.joint(contents, styles, MergeConfig(steps=steps)))


WAYS: Mapping[str, Way] = {
    "joint": joint,
    "stacked": stacked,
    "stacked, weaker": stacked_weaker,
    "router alone": routed,
    "combined": combined,
}


def together(split: Split, pictures: int, draws: int = 4, counts: Sequence[int] = COUNTS) -> list[Together]:
    """All ways, over as many draws of concepts as the split has of either kind; `pictures` for each concept."""
    asked: list[tuple[Split, str, int, tuple[int, ...], int]] = [
        (split, kind, draw, tuple(counts), pictures) for draw in range(draws) for kind in ("content", "style")
    ]
    verdicts: dict[tuple[str, int, str], list[Verdict]] = {}
    for _, found in side_by_side(_drawn, asked):
        for key, some in found.items():
            verdicts.setdefault(key, []).extend(some)
    rows: list[Together] = []
    for (kind, concepts, way), some in sorted(verdicts.items(), key=lambda each: each[0][:2]):
        it = summarise(some)
        rows.append(Together(way, kind, concepts, it.content, it.style, it.harmonic, it.interval))
    return rows


def _drawn(asked: tuple[Split, str, int, tuple[int, ...], int]) -> dict[tuple[str, int, str], list[Verdict]]:
    """One draw: concept number `draw` of the one kind with the next 2, 3, … of the other; styles only two at once."""
    split, kind, draw, counts, pictures = asked
    bench, contents, styles = open_workbench(), labels(CONTENTS, split), labels(STYLES, split)
    verdicts: dict[tuple[str, int, str], list[Verdict]] = {}
    for count in counts if kind == "content" else (2,):
        if kind == "content":
            some = tuple(contents[(draw + i) % len(contents)] for i in range(count)), (styles[draw],)
        else:
            some = (contents[draw],), tuple(styles[(draw + i) % len(styles)] for i in range(count))
        cases = [Case(content, style) for content in some[0] for style in some[1]]
        for name, way in WAYS.items():
            verdicts[kind, count, name] = _judged(bench, way(bench, *some), cases, pictures, draw)
            sys.stderr.write(f"{count} of {kind}, draw {draw}: {name}\n")
    return verdicts


def _judged(bench: Workbench, merged: MergedLora, cases: Sequence[Case], pictures: int, draw: int) -> list[Verdict]:
    """A verdict for each case, from pictures of its own prompt."""
    prompts = [case.prompt for case in cases for _ in range(pictures)]
    painted = paint_with(bench.model, merged.fold(), prompts, SEED + draw)
    starts = range(0, len(prompts), pictures)
    return [judge(painted[i : i + pictures], prompts[i : i + pictures], bench.oracle) for i in starts]


def several_json(rows: Sequence[Together]) -> dict[str, dict[str, object]]:
    """{number of contents, or "2 styles": {way: harmonic mean, and the joint merge's interval}}."""
    found: dict[str, dict[str, object]] = {}
    for row in rows:
        each = found.setdefault(str(row.concepts) if row.kind == "content" else f"{row.concepts} styles", {})
        each[row.way] = round(row.harmonic, 4)
        if row.way == "joint":
            each["ci"] = [round(bound, 4) for bound in row.interval]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS[1:], default="dev", help="test: to report, not to choose by")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--draws", type=int, default=4)
    wanted = parser.parse_args()
    rows = together(wanted.split, wanted.pictures, wanted.draws)
    for row in rows:
        sys.stdout.write(
            f"{row.concepts} of {row.kind}  {row.way:16}  content {row.content:.3f}  style {row.style:.3f}  harmonic "
            f"{row.harmonic:.3f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}]\n"
        )
    sys.stdout.write(json.dumps({"several": several_json(rows)}) + "\n")


if __name__ == "__main__":
    main()
