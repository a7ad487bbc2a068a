"""Content and style LoRAs of one and the same picture: DreamBooth, B-LoRA and UnZipLoRA through the engine.

    python -m benchmarks.shapes_world.training                      # held-out pictures
    python -m benchmarks.shapes_world.training --split dev          # to tune on

Four pictures, each of a novel content in a novel style, and each way's two LoRAs of them, as the oracle sees what they
paint. The prompts of a content LoRA are its word beside every known style, and as often its word alone; a style LoRA's
are made likewise.

- content_alone, style_alone: how often the LoRA's own part is there
- content_leak: how often the style LoRA brings the picture's content along, which no prompt of it names
- style_leak: how often the content LoRA brings the style along; leak is the mean of both
- kept: both LoRAs of one picture, with the prompt that names both; harmonic mean of content and style accuracy
- recombined_harmonic: content LoRA of one picture + style LoRA of another, with a prompt that names both
- merged_harmonic: the same merged by DuoLoRA, each content and each style once

The line before the last has all ways, UnZipLoRA's parts one by one among them; the last has those that are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.workers import side_by_side
from duolora_core.baselines.training_free import stack
from duolora_core.lora.folded import FoldedLora

from .applied import applied
from .judging import Verdict, judge, paint
from .model import Prompt
from .names import CONTENTS, SPLITS, STYLES, Split, labels
from .recombined import merged, pair_of
from .single_picture import WAYS, Parts, Source, sources
from .workbench import Workbench, open_workbench

COMPARED = ("plain", "b_lora", "unzip")
REPORTED = ("content_alone", "style_alone", "leak", "recombined_harmonic")
SEED = 31_000


@dataclass(frozen=True)
class Job:
    """One way on one picture, which is the `place`-th of the first `count` of a split."""

    way: str
    split: Split
    place: int
    count: int

    @property
    def sources(self) -> list[Source]:
        return sources(self.split)[: self.count]


@dataclass(frozen=True)
class Trial:
    """What is to be judged: a way's parts of every picture, those of one picture and its style with others."""

    job: Job
    parts: Sequence[Parts]
    pictures: int


def make(job: Job) -> Parts:
    """Trains one way on one picture."""
    return WAYS[job.way](open_workbench().denoiser, job.sources[job.place])


def measure(trial: Trial) -> dict[str, float]:
    """All numbers of one picture; those of pairs are means over the other pictures' styles."""
    bench, everything, here = open_workbench(), trial.job.sources, trial.job.place
    source, parts, few = everything[here], trial.parts[here], trial.pictures // 2
    content = _verdict(bench, parts.content, _prompts(source, "content", trial.pictures), source)
    style = _verdict(bench, parts.style, _prompts(source, "style", trial.pictures), source)
    own = _verdict(bench, stack(pair_of(bench, parts.content, parts.style)), [source.prompt] * few, source)
    recombined: list[float] = []
    by_duolora = 0.0
    for turn in range(1, len(everything)):
        other = everything[(here + turn) % len(everything)]
        both = Source(source.content, other.style)
        pair = pair_of(bench, parts.content, trial.parts[(here + turn) % len(everything)].style)
        recombined.append(_verdict(bench, stack(pair), [both.prompt] * few, both).harmonic)
        if turn == 1:
            by_duolora = _verdict(bench, merged(bench, pair, source, other), [both.prompt] * few, both).harmonic
    return {
        "content_alone": content.content,
        "style_alone": style.style,
        "leak": (content.style + style.content) / 2,
        "style_leak": content.style,
        "content_leak": style.content,
        "kept": own.harmonic,
        "recombined_harmonic": sum(recombined) / len(recombined),
        "merged_harmonic": by_duolora,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="dev: to tune on, not to report")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sources", type=int, default=4, help="the first so many pictures of the split, at least 2")
    parser.add_argument("--pictures", type=int, default=28, help="of each LoRA alone; half as many of each pair")
    parser.add_argument("--workers", type=int, default=2)
    wanted = parser.parse_args()
    started = time.perf_counter()
    jobs = [Job(way, wanted.split, place, wanted.sources) for way in wanted.ways for place in range(wanted.sources)]
    made: dict[Job, Parts] = {}
    for job, parts in side_by_side(make, jobs, wanted.workers):
        made[job] = parts
        _note(f"trained {len(made)} of {len(jobs)}", started)
    trials = [Trial(job, [made[other] for other in jobs if other.way == job.way], wanted.pictures) for job in jobs]
    found: dict[Job, dict[str, float]] = {}
    for trial, numbers in side_by_side(measure, trials, wanted.workers):
        found[trial.job] = numbers
        _note(f"judged {len(found)} of {len(jobs)}: {trial.job.way}, {json.dumps(numbers)}", started)
    table = {way: _mean([found[job] for job in jobs if job.way == way]) for way in wanted.ways}
    for way, row in table.items():
        _say(f"{way:24}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
    _say(json.dumps(table))
    _say(json.dumps({way: {name: table[way][name] for name in REPORTED} for way in COMPARED if way in table}))


def _prompts(source: Source, side: str, count: int) -> list[Prompt]:
    """The side's word beside every known word of the other kind in turn, and alone, by turns."""
    known = labels(STYLES if side == "content" else CONTENTS, "known")
    beside = [known[i // 2 % len(known)] if i % 2 == 0 else None for i in range(count)]
    if side == "content":
        return [Prompt(source.content, style) for style in beside]
    return [Prompt(content, source.style) for content in beside]


def _verdict(bench: Workbench, lora: FoldedLora, prompts: Sequence[Prompt], source: Source) -> Verdict:
    """How often the source's content and its style are there, whatever the prompts name."""
    with applied(bench.model, lora) as model:
        painted = paint(model, prompts, SEED + 100 * source.content + source.style)
    return judge(painted, [source.prompt] * len(prompts), bench.oracle)


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}


def _note(line: str, started: float) -> None:
    sys.stderr.write(f"{line}, {(time.perf_counter() - started) / 60:.1f} minutes\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
