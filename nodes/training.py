"""A training as the artist sees it: its curves, its live picture, and the losses for core's plot."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from ..duolora_core.errors import NotFiniteError, TrainingError
from ..duolora_core.gates import BlockGates
from ..duolora_core.memory.plans import Plans
from ..duolora_core.report import training_preview
from ..duolora_core.trainer import Report
from .host.outputs import withheld
from .host.progress import Progress
from .keeping import AReport, AState, Keeper


class History:
    """The loss curves so far, the latest gate map and sample, and what is worth telling about stops and memory.

    Attributes:
        ended: why the training could not go on to its last step; empty if it did
    """

    def __init__(self, steps: int, plans: Plans, keeper: Keeper[Any, Any], hidden: Collection[str] = ()):
        """
        Args:
            keeper: of this training, which may go on with an earlier one's curves
            hidden: terms that are measured without being minimised; a curve of theirs would only squeeze the others
        """
        self.steps, self.hidden = steps, hidden
        self.stops, self.memory = keeper.notes, plans.notes
        self.losses = {term: list(curve) for term, curve in keeper.losses.items()}
        self.before = keeper.state.step if keeper.state else 0
        self.blocks: Sequence[BlockGates] = ()
        self.done = self.before
        self.ended = ""
        self.sample: Image | None = None
        self.started = time.monotonic()

    def add(self, report: Report) -> None:
        for term, value in report.losses.items():
            if term not in self.hidden:
                self.losses.setdefault(term, []).append(value)
        self.blocks, self.done = report.blocks, report.step

    @property
    def seconds(self) -> float:
        """Of this run alone."""
        return time.monotonic() - self.started

    @property
    def told(self) -> list[str]:
        """Steps and time, an early end, stops and memory, in plain words."""
        steps = f"{self.done} steps" + (f", {self.done - self.before} of them now," if self.before else "")
        ended = [self.ended] if self.ended else []
        return [f"{steps} in {self.seconds:.0f} s", *ended, *self.stops, *self.memory]

    def picture(self) -> Image:
        left = self.seconds / (self.done - self.before) * (self.steps - self.done)
        return training_preview(self.losses, self.blocks, self.done, self.steps, left, self.sample)


def watched(
    reports: Iterable[AReport],
    steps: int,
    plans: Plans,
    keeper: Keeper[AState, AReport],
    sampler: Callable[[int], Image | None] = lambda step: None,
    hidden: Collection[str] = (),
) -> History:
    """Runs a training to its end and shows every step; raises the host's interrupt exception on Cancel.

    Numbers that are not finite end a training early: what it had reached is handed out all the same, and its state
    stays on disk, so that the same graph comes to the same end again without the steps before.

    Args:
        keeper: told of every step, so that the training is kept whatever stops it
        sampler: called after each step, for a picture of what has been reached or None
        hidden: see `History`

    Raises:
        NotFiniteError: before any step had succeeded.
    """
    history, progress = History(steps, plans, keeper, hidden), Progress(steps)
    try:
        for report in reports:
            history.add(report)
            keeper.after(report, history.losses)
            sample = sampler(report.step)
            history.sample = sample or history.sample
            progress.update(report.step, history.picture, at_once=sample is not None)
    except TrainingError as error:
        if not isinstance(error, NotFiniteError) or not history.done:
            keeper.finished()  # it would only fail again
            raise
        history.ended = str(error)
        keeper.stays()
    except BaseException:
        keeper.write()
        raise
    return history


def loss_map(losses: Mapping[str, Sequence[float]]) -> Any:
    """LOSS_MAP of a training; withheld where there is no curve, because core's Plot Loss Graph fails on a flat one."""
    total = losses.get("total", ())
    return {"loss": list(total), **losses} if len(set(total)) > 1 else withheld()
