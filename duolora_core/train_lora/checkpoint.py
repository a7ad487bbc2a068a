"""How far a training has come: what it takes to resume exactly, as plain tensors, and what one step said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TrainingError
from ..merge.trainer import Report
from .trainable_lora import Side, TrainableLora

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each number that it trains."""


@dataclass(frozen=True)
class LoraCheckpoint:
    """A training after `step` steps. With the same pictures and settings it resumes bit for bit as if never stopped.

    Attributes:
        tensors: {"content.<layer>.up": tensor} of every LoRA, and of the optimiser {"….up.exp_avg": tensor}; on the CPU
        scale_divisor: see `LossScale`
    """

    step: int
    tensors: Mapping[str, Tensor]
    scale_divisor: int = 1


@dataclass(frozen=True)
class LoraStepReport(Report):
    """One finished step; `sigma` is the mean over its pictures, `blocks` is empty.

    Attributes:
        learning_rate: of this step, before the factors of `Rates`
        checkpoint: takes one now; only before the next step is taken, but also when that one was broken off
    """

    learning_rate: float
    checkpoint: Callable[[], LoraCheckpoint]


def named_parameters(loras: Mapping[Side, TrainableLora]) -> dict[str, Tensor]:
    """{name: tensor} of everything that is trained, in a fixed order."""
    return {f"{role}.{name}": tensor for role, lora in loras.items() for name, tensor in lora.trained()}


def lora_tensors(loras: Mapping[Side, TrainableLora]) -> dict[str, Tensor]:
    """{name: tensor} of everything that makes up the LoRAs: the very tensors that the optimiser changes in place."""
    return {f"{role}.{name}": tensor for role, lora in loras.items() for name, tensor in lora.tensors().items()}


def capture(
    step: int, current: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, scale_divisor: int = 1
) -> LoraCheckpoint:
    """A copy of the training as it is; `current` as `lora_tensors` gave it in this step."""
    tensors = dict(current)
    for name, parameter in current.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{name}.{key}"] = value
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    return LoraCheckpoint(step, copies, scale_divisor)


def require_fitting(checkpoint: LoraCheckpoint, loras: Mapping[Side, TrainableLora], steps: int) -> None:
    """Refuses the checkpoint of another training, before anything is changed.

    Raises:
        TrainingError: it has other tensors or shapes, numbers that are not finite, or more steps than are asked for.
    """
    fix = "Start the training afresh."
    if not 0 <= checkpoint.step <= steps:
        raise TrainingError(f"The saved training is at step {checkpoint.step} of {steps}. {fix}")
    wanted = lora_tensors(loras)
    moments = {
        f"{name}.{key}": tensor if key != "step" else torch.zeros(())
        for name, tensor in named_parameters(loras).items()
        if f"{name}.step" in checkpoint.tensors  # a parameter that no step has touched yet has none
        for key in MOMENTS
    }
    for name, tensor in (wanted | moments).items():
        saved = checkpoint.tensors.get(name)
        if saved is None or saved.shape != tensor.shape or saved.dtype != torch.float32:
            there = "missing" if saved is None else f"{tuple(saved.shape)} {saved.dtype}"
            raise TrainingError(
                f"The saved training does not fit: {name} is {there}, but {tuple(tensor.shape)} torch.float32 is "
                f"needed. It was made with other settings. {fix}"
            )
        if not bool(saved.isfinite().all()):
            raise TrainingError(f"The saved training is damaged: {name} has values that are not finite. {fix}")


def restore(checkpoint: LoraCheckpoint, loras: Mapping[Side, TrainableLora], optimiser: torch.optim.Optimizer) -> None:
    """Puts a fitting checkpoint's numbers into LoRAs and optimiser, which are on their device already."""
    with torch.no_grad():
        for role, lora in loras.items():
            for name, tensor in lora.tensors().items():
                tensor.copy_(checkpoint.tensors[f"{role}.{name}"])
    names = {id(parameter): name for name, parameter in named_parameters(loras).items()}
    ordered = [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    state = {
        place: {key: checkpoint.tensors[f"{name}.{key}"].clone() for key in MOMENTS}
        for place, name in enumerate(ordered)
        if f"{name}.step" in checkpoint.tensors
    }
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})  # it knows where each number belongs
