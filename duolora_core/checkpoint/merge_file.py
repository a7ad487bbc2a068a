"""The checkpoint of a merge, in a file: from it the training resumes as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .file import CheckpointData, read_checkpoint, write_checkpoint
from .gates import DIVISORS, GateCheckpoint

MOST_BYTES = 2**30
"""No file that we write is nearly as large: 60 training pictures of 1024 px are 16 MB, all gates some megabytes."""

_GATES = ("values", "mean", "square", "best")


@dataclass(frozen=True)
class MergeCheckpoint:
    """What such a file holds.

    Attributes:
        losses: {term: one number for each step so far}
        content, style: the latents it trains on, (channels, h, w) each, float32
    """

    state: GateCheckpoint
    losses: Mapping[str, Sequence[float]]
    content: Sequence[Tensor]
    style: Sequence[Tensor]


def write_merge_checkpoint(path: Path, saved: MergeCheckpoint, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    state = saved.state
    tensors = {name: getattr(state, name) for name in _GATES}
    tensors["smoothed"] = torch.tensor([state.smoothed, state.lowest], dtype=torch.float64)
    tensors["scale_divisor"] = torch.tensor(state.scale_divisor, dtype=torch.float64)
    pictures = {"content": saved.content, "style": saved.style}
    return write_checkpoint(path, CheckpointData(state.step, saved.losses, pictures, tensors), fingerprint)


def read_merge_checkpoint(path: Path, fingerprint: str, gates: int, steps: int) -> MergeCheckpoint:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        gates, steps: of the training that is to be resumed

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """
    return read_checkpoint(path, fingerprint, MOST_BYTES, lambda saved: _parsed(saved, gates, steps))


def _parsed(saved: CheckpointData, gates: int, steps: int) -> MergeCheckpoint:
    tensors, content, style = saved.state, saved.pictures["content"], saved.pictures["style"]
    expected = {name: (torch.float32, (gates,)) for name in _GATES} | {
        "smoothed": (torch.float64, (2,)),
        "scale_divisor": (torch.float64, ()),
    }
    if {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} != expected:
        raise ValueError("its tensors are not those of this training")
    divisor = int(tensors["scale_divisor"])
    known = divisor in DIVISORS and bool((tensors["square"] >= 0).all())
    if not (known and saved.step < steps and content and style):
        raise ValueError("its numbers are not those of this training")
    smoothed, lowest = tensors["smoothed"].tolist()
    state = GateCheckpoint(
        saved.step, *(tensors[name] for name in _GATES), smoothed=smoothed, lowest=lowest, scale_divisor=divisor
    )
    return MergeCheckpoint(state, saved.losses, content, style)
