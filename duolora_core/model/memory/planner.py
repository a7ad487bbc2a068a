"""The plan that a training runs under, and how it is retried under a smaller one when memory runs out.

    planner = MemoryPlanner(
        [plan for plan, _ in candidate_plans(work, storage, 4)],
        out_of_memory=host_says,
        on_change=set_checkpointing,
    )
    losses = planner.run_with_oom_retry(lambda plan: step(plan.micro_batch))

`run_with_oom_retry` runs the step again, under the next plan, each time that memory runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ...errors import OutOfMemoryError
from .estimate import MemoryPlan
from .out_of_memory import is_out_of_memory

Result = TypeVar("Result")


class MemoryPlanner:
    """A plan in force and the smaller ones after it; each is left for good when memory has run out under it.

    Attributes:
        notes: what happened, in plain words, for the caller to show
    """

    def __init__(
        self,
        plans: Sequence[MemoryPlan],
        *,
        out_of_memory: Callable[[Exception], bool] = is_out_of_memory,
        on_change: Callable[[MemoryPlan], None] = lambda plan: None,
    ):
        """
        Args:
            plans: at least one, best first
            out_of_memory: whether an exception means that; all others are passed on
            on_change: called with the first plan and with every later one before it is used, to free what can be freed
                and to turn checkpointing on or off
        """
        self._plans = list(plans)
        self._out_of_memory = out_of_memory
        self._on_change = on_change
        self.notes: list[str] = []
        on_change(self.current)

    @property
    def current(self) -> MemoryPlan:
        """The plan in force."""
        return self._plans[0]

    def run_with_oom_retry(self, work: Callable[[MemoryPlan], Result]) -> Result:
        """work(plan), repeated under the next plan whenever memory runs out; it must start from the same state then.

        Raises:
            OutOfMemoryError: memory ran out under the last plan.
        """
        while True:
            try:
                return work(self.current)
            except Exception as error:
                if not self._out_of_memory(error):
                    raise
                if len(self._plans) == 1:
                    raise OutOfMemoryError(
                        f"Memory ran out even with {self.current}. Lower the resolution, close other programs that use "
                        "the graphics card, or load the checkpoint with fp8 weights if it is not yet."
                    ) from error
            # Only here, where the exception and with it the failed attempt's activations are gone, is there room.
            failed = self._plans.pop(0)
            self._on_change(self.current)
            self.notes.append(f"memory ran out with {failed}; went on from the same step with {self.current}")
