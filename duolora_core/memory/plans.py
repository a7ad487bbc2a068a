"""The plan that a training runs under, and how it goes on under a smaller one when memory runs out.

    plans = Plans([plan for plan, _ in ladder(work, storage, 4)], out_of_memory=host_says, adopt=set_checkpointing)
    losses = plans.afford(lambda plan: step(plan.micro_batch))

`afford` runs the step again, under the next plan, each time that memory runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import OutOfMemoryError
from .needs import Plan
from .out_of_memory import is_out_of_memory

Result = TypeVar("Result")


class Plans:
    """A plan in force and the smaller ones after it; each is left for good when memory has run out under it.

    Attributes:
        notes: what happened, in plain words, for the caller to show
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        out_of_memory: Callable[[Exception], bool] = is_out_of_memory,
        adopt: Callable[[Plan], None] = lambda plan: None,
    ):
        """
        Args:
            plans: at least one, best first
            out_of_memory: whether an exception means that; all others are passed on
            adopt: called with the first plan and with every later one before it is used, to free what can be freed and
                to turn checkpointing on or off
        """
        self._plans = list(plans)
        self._out_of_memory = out_of_memory
        self._adopt = adopt
        self.notes: list[str] = []
        adopt(self.current)

    @property
    def current(self) -> Plan:
        """The plan in force."""
        return self._plans[0]

    def afford(self, work: Callable[[Plan], Result]) -> Result:
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
            self._adopt(self.current)
            self.notes.append(f"memory ran out with {failed}; went on from the same step with {self.current}")
