"""The backward pass in half precision: the loss is scaled up before it, and its gradient down after it.

    scale = LossScale(notes)
    losses = scale.gradient(parameters, elements, accumulate)

A mean over the latent makes gradients of about 1e-7 at SDXL's size, below half precision. A power of two near the
number of elements brings them to the activations' own magnitude and divides out without rounding. Where that
overflows, the same step is repeated at a 64th of it, and then at a 4096th (loss scaling, arXiv 1710.03740).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checkpoint.state import DIVISORS

Losses = dict[str, float]


class LossScale:
    """How far a training's losses are scaled up; lowered for good when a gradient overflows.

    Attributes:
        divisor: of the full scale, one of DIVISORS; what a training that goes on must start with
    """

    def __init__(self, notes: list[str], divisor: int = 1):
        """
        Args:
            notes: takes what happened, in plain words, for the caller to show
        """
        self.divisor, self._notes = divisor, notes
        if divisor != 1:
            notes.append(f"the loss scale stays at 1/{divisor}, since a gradient had overflowed before the stop")

    def gradient(self, parameters: Sequence[Tensor], elements: int, accumulate: Callable[[float], Losses]) -> Losses:
        """The losses of a step, and their gradient in `grad`.

        The gradient is not finite where the loss is not, which no scale can help, or where the least scale overflows.

        Args:
            elements: of one latent
            accumulate: adds the gradient of the losses times its argument to `grad` and returns the losses, "total" as
                minimised; repeated from the same state where the gradient overflows
        """
        while True:
            for parameter in parameters:
                parameter.grad = None
            scale = 2.0 ** round(math.log2(elements)) / self.divisor
            losses = accumulate(scale)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= scale
            overflowed = math.isfinite(losses["total"]) and not math.isfinite(gradient_norm(parameters))
            if not overflowed or self.divisor == DIVISORS[-1]:
                return losses
            self.divisor = DIVISORS[DIVISORS.index(self.divisor) + 1]
            self._notes.append(f"a gradient overflowed; the step was repeated with 1/{self.divisor} of the loss scale")


def gradient_norm(parameters: Sequence[Tensor]) -> float:
    """The norm of all gradients together, which stay as they are if it is finite."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, math.inf))
