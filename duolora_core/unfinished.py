"""A merge that has not ended, in a file: from it the same training goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .kept_training import KeptTraining, read_kept, write_kept
from .loss_scale import DIVISORS
from .training_state import TrainingState

MOST_BYTES = 2**30
"""No file that we write is nearly as large: 60 training pictures of 1024 px are 16 MB, all gates some megabytes."""

_GATES = ("values", "mean", "square", "best")


@dataclass(frozen=True)
class Unfinished:
    """What is kept of it.

    Attributes:
        losses: {term: one number for each step so far}
        content, style: the latents it trains on, (channels, h, w) each, float32
    """

    state: TrainingState
    losses: Mapping[str, Sequence[float]]
    content: Sequence[Tensor]
    style: Sequence[Tensor]


def write_unfinished(path: Path, kept: Unfinished, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    state = kept.state
    tensors = {name: getattr(state, name) for name in _GATES}
    tensors["smoothed"] = torch.tensor([state.smoothed, state.lowest], dtype=torch.float64)
    tensors["scale_divisor"] = torch.tensor(state.scale_divisor, dtype=torch.float64)
    pictures = {"content": kept.content, "style": kept.style}
    return write_kept(path, KeptTraining(state.step, kept.losses, pictures, tensors), fingerprint)


def read_unfinished(path: Path, fingerprint: str, gates: int, steps: int) -> Unfinished:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        gates, steps: of the training that wants to go on

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """
    return read_kept(path, fingerprint, MOST_BYTES, lambda kept: _unfinished(kept, gates, steps))


def _unfinished(kept: KeptTraining, gates: int, steps: int) -> Unfinished:
    tensors, content, style = kept.state, kept.pictures["content"], kept.pictures["style"]
    expected = {name: (torch.float32, (gates,)) for name in _GATES} | {
        "smoothed": (torch.float64, (2,)),
        "scale_divisor": (torch.float64, ()),
    }
    if {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} != expected:
        raise ValueError("its tensors are not those of this training")
    divisor = int(tensors["scale_divisor"])
    known = divisor in DIVISORS and bool((tensors["square"] >= 0).all())
    if not (known and kept.step < steps and content and style):
        raise ValueError("its numbers are not those of this training")
    smoothed, lowest = tensors["smoothed"].tolist()
    state = TrainingState(
        kept.step, *(tensors[name] for name in _GATES), smoothed=smoothed, lowest=lowest, scale_divisor=divisor
    )
    return Unfinished(state, kept.losses, content, style)
