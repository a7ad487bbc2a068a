"""A training as the artist sees it: its curves, its live picture, and the losses for core's plot."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from ..duolora_core import StepReport
from ..duolora_core.gates import BlockGates
from ..duolora_core.plans import Plans
from ..duolora_core.report import training_preview
from .host.outputs import withheld
from .host.progress import Progress


class History:
    """The loss curves so far, the latest gate map and sample, and what is worth telling about memory."""

    def __init__(self, steps: int, plans: Plans, hidden: Collection[str] = ()):
        """
        Args:
            hidden: terms that are measured without being minimised; a curve of theirs would only squeeze the others
        """
        self.steps, self.hidden = steps, hidden
        self.memory = plans.notes
        self.losses: dict[str, list[float]] = {}
        self.blocks: Sequence[BlockGates] = ()
        self.done = 0
        self.sample: Image | None = None
        self.started = time.monotonic()

    def add(self, report: StepReport) -> None:
        for term, value in report.losses.items():
            if term not in self.hidden:
                self.losses.setdefault(term, []).append(value)
        self.blocks, self.done = report.blocks, report.step

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def picture(self) -> Image:
        left = self.seconds / self.done * (self.steps - self.done)
        return training_preview(self.losses, self.blocks, self.done, self.steps, left, self.sample)


def watched(
    reports: Iterable[StepReport],
    steps: int,
    plans: Plans,
    sampler: Callable[[int], Image | None] = lambda step: None,
    hidden: Collection[str] = (),
) -> History:
    """Runs a training to its end and shows every step; raises the host's interrupt exception on Cancel.

    Args:
        sampler: called after each step, for a picture of what has been reached or None
        hidden: see `History`
    """
    history, progress = History(steps, plans, hidden), Progress(steps)
    for report in reports:
        history.add(report)
        history.sample = sampler(report.step) or history.sample
        progress.update(report.step, history.picture)
    return history


def loss_map(losses: Mapping[str, Sequence[float]]) -> Any:
    """LOSS_MAP of a training; withheld where there is no curve, because core's Plot Loss Graph fails on a flat one."""
    total = losses.get("total", ())
    return {"loss": list(total), **losses} if len(set(total)) > 1 else withheld()
