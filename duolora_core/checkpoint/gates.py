"""Where a training stands: all that its steps so far have left behind, so that it can be resumed from there.

The random samples are not part of it. They follow from the seed and are gone through again, without asking a teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingsError

DIVISORS = (1, 64, 4096)
"""What the full loss scale may have been divided by, in the order in which it is tried."""


@dataclass(frozen=True)
class GateCheckpoint:
    """After `step` steps. The tensors are float32 on the CPU, (total gates,).

    Attributes:
        values: the gates
        mean, square: AdamW's running averages of the gradient and of its square
        best: the gates at the lowest smoothed loss
        smoothed, lowest: the smoothed total loss now, and at its lowest
        scale_divisor: see `LossScale`
    """

    step: int
    values: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    smoothed: float
    lowest: float
    scale_divisor: int = 1


def capture(
    step: int,
    values: Tensor,
    optimiser: torch.optim.Optimizer,
    best: Tensor,
    smoothed: float,
    lowest: float,
    scale_divisor: int,
) -> GateCheckpoint:
    """A copy of all of it, which the next step does not touch."""
    moments = optimiser.state[values]
    held = (values, moments["exp_avg"], moments["exp_avg_sq"], best)
    copies = [tensor.detach().to("cpu", copy=True) for tensor in held]
    return GateCheckpoint(step, *copies, smoothed=smoothed, lowest=lowest, scale_divisor=scale_divisor)


def restore(state: GateCheckpoint, values: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """Gives trainable values and their fresh AdamW what a state holds of them.

    Raises:
        SettingsError: the state is of another number of gates.
    """
    if state.values.shape != values.shape:
        raise SettingsError(
            f"This training has {values.numel()} gates, but what it should go on from has {state.values.numel()}. "
            "It belongs to another merge: start from the first step."
        )
    with torch.no_grad():
        values.copy_(state.values)
    optimiser.state[values] = {
        "step": torch.tensor(float(state.step)),
        "exp_avg": state.mean.to(values, copy=True),
        "exp_avg_sq": state.square.to(values, copy=True),
    }
