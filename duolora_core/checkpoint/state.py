"""Where a training stands: all that its steps so far have left behind, so that it can be resumed from there.

    checkpoint = capture(step, {"values": values}, optimiser, scale.divisor)
    require_fitting(checkpoint, start, steps)       # before anything is changed
    restore(checkpoint, {"values": values}, optimiser)

The random samples are not part of it: they follow from seed and step, and are gone through again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import TrainingError

DIVISORS = (1, 64, 4096)
"""What the full loss scale may have been divided by, in the order in which it is tried."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each tensor that it trains."""


@dataclass(frozen=True)
class Checkpoint:
    """A training after `step` steps. With the same inputs it resumes bit for bit as if it had never stopped.

    Attributes:
        tensors: {name: what is trained or was best so far} and AdamW's moments, {"<name>.exp_avg": tensor}; float32
        scale_divisor: see `LossScale`
        numbers: {name: any other number that the next step depends on}
        losses: {term: one number for each step}
        pictures: {whose: the latents it trains on, (channels, h, w) each}; whoever samples them pays as much for them
            as for the training
    """

    step: int
    tensors: Mapping[str, Tensor]
    scale_divisor: int = 1
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    pictures: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])


def capture(
    step: int,
    tensors: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    scale_divisor: int,
    numbers: Mapping[str, float] | None = None,
) -> Checkpoint:
    """A copy of all of it on the CPU, which the next step does not touch; the optimiser's part by the same names."""
    held = dict(tensors)
    for name, tensor in tensors.items():
        held |= {f"{name}.{key}": value for key, value in optimiser.state.get(tensor, {}).items()}
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in held.items()}
    return Checkpoint(step, copies, scale_divisor, numbers or {})


def restore(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Puts a fitting checkpoint's numbers into these tensors and their fresh optimiser, wherever these are."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(checkpoint.tensors[name])
    names = {id(tensor): name for name, tensor in tensors.items()}
    trained = [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    state = {
        place: {key: checkpoint.tensors[f"{name}.{key}"].clone() for key in MOMENTS}
        for place, name in enumerate(trained)
        if f"{name}.step" in checkpoint.tensors  # a tensor that no step has touched yet has none
    }
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})  # it knows where each number belongs


def require_fitting(checkpoint: Checkpoint, start: Checkpoint, steps: int) -> None:
    """Refuses the checkpoint of another training.

    Args:
        start: this training before its first step, whose tensors have the names and shapes that are needed

    Raises:
        TrainingError: it has other tensors, shapes or numbers, values that no training has, or more steps than are
            asked for.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in start.tensors.items()}
    touched = [name for name in shapes if any(f"{name}.{key}" in checkpoint.tensors for key in MOMENTS)]
    moments = {f"{name}.{key}": () if key == "step" else shapes[name] for name in touched for key in MOMENTS}
    needed = {name: f"{shape} {torch.float32}" for name, shape in (shapes | moments).items()}
    found = {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in checkpoint.tensors.items()}
    problem = ""
    if not 0 <= checkpoint.step <= steps:
        problem = f"is at step {checkpoint.step} of {steps}"
    elif checkpoint.scale_divisor not in DIVISORS or checkpoint.numbers.keys() != start.numbers.keys():
        problem = "does not fit: its numbers are not those of this training"
    elif different := sorted(name for name, _ in needed.items() ^ found.items()):
        name = different[0]
        there, wanted = found.get(name, "missing"), needed.get(name, "nothing")
        problem = f"does not fit: {name} is {there}, but {wanted} is needed; it was made with other settings"
    elif damaged := [name for name, tensor in checkpoint.tensors.items() if not _possible(name, tensor)]:
        problem = f"is damaged: {damaged[0]} has values that no training has"
    if problem:
        raise TrainingError(f"The saved training {problem}. Start the training afresh.")


def _possible(name: str, values: Tensor) -> bool:
    return bool(values.isfinite().all()) and not (name.endswith(MOMENTS[-1]) and bool((values < 0).any()))
