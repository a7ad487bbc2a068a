"""Trials: one method on one case, its pictures judged; many of them side by side, one process for each core."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from benchmarks.word_sampling import Denoise
from benchmarks.workers import side_by_side
from duolora_core import kohya_state_dict
from duolora_core.lora.folded import FoldedLora

from .applied import applied
from .cases import Case
from .concepts import concept_pictures
from .judging import Verdict, judge, paint
from .methods import Lora, Method
from .model import Prompt, ShapesModel
from .render import as_image
from .workbench import open_workbench

SEED = 20_000
"""Of the noise that pictures start from; every method on a case starts from the same."""


@dataclass(frozen=True)
class Trial:
    """What is to be tried.

    Attributes:
        others: pairs of content and style strength beside 1 and 1; each is judged on a quarter of the pictures
    """

    name: str
    method: Method
    case: Case
    pictures: int
    others: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        seen: (pictures, 3) as in Verdict, for strengths 1 and 1 and then for each of the others
        examples: the first four pictures
        seconds: of the merge alone, in one thread
        bytes: of the fp16 file; 0 where the method does not fold into one
    """

    name: str
    case: Case
    seen: tuple[Any, ...]
    examples: Sequence[Image.Image]
    parameters: int
    seconds: float
    bytes: int

    @property
    def verdict(self) -> Verdict:
        """At strengths 1 and 1."""
        return self.verdicts[0]

    @property
    def verdicts(self) -> list[Verdict]:
        return [Verdict(torch.from_numpy(seen)) for seen in self.seen]


def run(trial: Trial) -> Outcome:
    """Merges, paints the combined prompt and asks the oracle."""
    bench = open_workbench()
    started = time.perf_counter()
    made = trial.method(bench, trial.case)
    seconds = time.perf_counter() - started
    prompts, noise = [trial.case.prompt] * trial.pictures, SEED + trial.case.content * 100 + trial.case.style
    painted = [paint_with(bench.model, made.fold(1.0, 1.0), prompts, noise)]
    for content, style in trial.others:
        painted.append(paint_with(bench.model, made.fold(content, style), prompts[: trial.pictures // 4], noise))
    foreign = {c for prompt in concept_pictures("style", trial.case.style).prompts if (c := prompt.content) is not None}
    lora = made.fold(1.0, 1.0)
    return Outcome(
        name=trial.name,
        case=trial.case,
        seen=tuple(judge(each, prompts[: len(each)], bench.oracle, sorted(foreign)).seen.numpy() for each in painted),
        examples=[as_image(picture) for picture in painted[0][:4]],
        parameters=made.parameters,
        seconds=seconds,
        bytes=len(save(kohya_state_dict(lora))) if isinstance(lora, FoldedLora) else 0,
    )


def paint_with(model: ShapesModel, lora: Lora, prompts: Sequence[Prompt], seed: int) -> Tensor:
    """(len(prompts), 3, 32, 32) by the model with a LoRA."""
    with _lent(model, lora) as denoise:
        return paint(denoise, prompts, seed)


@contextmanager
def _lent(model: ShapesModel, lora: Lora) -> Generator[Denoise, None, None]:
    if isinstance(lora, FoldedLora):
        with applied(model, lora) as changed:
            yield changed
        return

    def denoise(x: Tensor, sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        timestep = int((model.sigmas.log() - sigma[0].log()).abs().argmin())
        with applied(model, lora(1 - timestep / (len(model.sigmas) - 1))) as changed:
            return changed(x, sigma, prompts)

    yield denoise


def run_all(trials: Sequence[Trial], workers: int | None = None) -> Iterator[Outcome]:
    """The outcomes as they come."""
    for _, outcome in side_by_side(run, trials, workers):
        yield outcome


def by_name(outcomes: Sequence[Outcome]) -> Mapping[str, list[Outcome]]:
    """{trial name: its outcomes, in the order of the cases}."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.case.content, o.case.style)):
        rows.setdefault(outcome.name, []).append(outcome)
    return rows
