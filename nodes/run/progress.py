"""A training as the artist sees it: its curves, its live picture, and the losses for core's plot."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from ...duolora_core import StepReport
from ...duolora_core.errors import NotFiniteError, TrainingError
from ...duolora_core.merge.statistics import BlockGates
from ...duolora_core.model.memory.planner import MemoryPlanner
from ...duolora_core.report import training_preview
from ..host.outputs import blocked_output
from ..host.progress import Progress
from .checkpoint import Checkpointer


class TrainingLog:
    """The loss curves so far, the latest gate map and sample, and what is worth saying about stops and memory.

    Attributes:
        ended: why the training could not go on to its last step; empty if it did
    """

    def __init__(self, steps: int, planner: MemoryPlanner, checkpointer: Checkpointer, hidden: Collection[str] = ()):
        """
        Args:
            checkpointer: of this training, which may be resumed with the curves so far
            hidden: terms that are measured without being minimised; a curve of theirs would only squeeze the others
        """
        self.steps, self.hidden = steps, hidden
        self.stops, self.memory = checkpointer.notes, planner.notes
        resume = checkpointer.resume
        self.losses = {term: list(curve) for term, curve in (resume.losses if resume else {}).items()}
        self.before = resume.step if resume else 0
        self.blocks: Sequence[BlockGates] = ()
        self.done = self.before
        self.ended = ""
        self.sample: Image | None = None
        self.started = time.monotonic()

    def add(self, report: StepReport) -> None:
        for term, value in report.losses.items():
            if term not in self.hidden:
                self.losses.setdefault(term, []).append(value)
        self.blocks, self.done = report.blocks, report.step

    @property
    def seconds(self) -> float:
        """Of this run alone."""
        return time.monotonic() - self.started

    @property
    def log_lines(self) -> list[str]:
        """Steps and time, an early end, stops and memory, in plain words."""
        steps = f"{self.done} steps" + (f", {self.done - self.before} of them now," if self.before else "")
        ended = [self.ended] if self.ended else []
        return [f"{steps} in {self.seconds:.0f} s", *ended, *self.stops, *self.memory]

    def picture(self) -> Image:
        left = self.seconds / (self.done - self.before) * (self.steps - self.done)
        return training_preview(self.losses, self.blocks, self.done, self.steps, left, self.sample)


def run_training(
    reports: Iterable[StepReport],
    steps: int,
    planner: MemoryPlanner,
    checkpointer: Checkpointer,
    sampler: Callable[[int], Image | None] = lambda step: None,
    hidden: Collection[str] = (),
) -> TrainingLog:
    """Runs a training to its end and shows every step; raises the host's interrupt exception on Cancel.

    Numbers that are not finite end a training early: what it had reached is handed out all the same, and its state
    stays on disk, so that the same graph comes to the same end again without the steps before.

    Args:
        checkpointer: given every step, so that the training can be resumed whatever stops it
        sampler: called after each step, for a picture of what has been reached or None
        hidden: see `TrainingLog`

    Raises:
        NotFiniteError: before any step had succeeded.
    """
    log, progress = TrainingLog(steps, planner, checkpointer, hidden), Progress(steps)
    try:
        for report in reports:
            log.add(report)
            checkpointer.after(report, log.losses)
            sample = sampler(report.step)
            log.sample = sample or log.sample
            progress.update(report.step, log.picture, at_once=sample is not None)
    except TrainingError as error:
        if not isinstance(error, NotFiniteError) or not log.done:
            checkpointer.finished()  # it would only fail again
            raise
        log.ended = str(error)
        checkpointer.stays()
    except BaseException:
        checkpointer.write()
        raise
    return log


def loss_map(losses: Mapping[str, Sequence[float]]) -> Any:
    """LOSS_MAP of a training; blocked where there is no curve, because core's Plot Loss Graph fails on a flat one."""
    total = losses.get("total", ())
    return {"loss": list(total), **losses} if len(set(total)) > 1 else blocked_output()
