"""A training that has not ended, in a file: from it the same training goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import DuoLoraError
from .kept_file import UNREADABLE, read_kept, write_kept
from .training_state import TrainingState

MOST_BYTES = 2**30
"""No file that we write is nearly as large: 60 training pictures of 1024 px are 16 MB, all gates some megabytes."""

_GATES = ("values", "mean", "square", "best")


@dataclass(frozen=True)
class Unfinished:
    """What is kept of it.

    Attributes:
        losses: {term: one number for each step so far}
        content, style: the latents it trains on, (channels, h, w) each, float32; sampled ones cost as much as training
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
    tensors["losses"] = torch.tensor([list(curve) for curve in kept.losses.values()], dtype=torch.float64)
    for side, latents in (("content", kept.content), ("style", kept.style)):
        tensors |= {f"{side}.{i}": latent.detach().to("cpu", torch.float32) for i, latent in enumerate(latents)}
    pictures = [len(kept.content), len(kept.style)]
    told = {"step": state.step, "terms": list(kept.losses), "pictures": pictures}
    return write_kept(path, tensors, told, fingerprint)


def read_unfinished(path: Path, fingerprint: str, gates: int, steps: int) -> Unfinished:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        gates, steps: of the training that wants to go on

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """
    try:
        tensors, told = read_kept(path, fingerprint, MOST_BYTES)
        return _unfinished(tensors, told, gates, steps)
    except UNREADABLE as error:
        raise DuoLoraError(f"{path.name} is no training that can be gone on with ({error}).") from error


def _unfinished(tensors: Mapping[str, Tensor], told: Mapping[str, Any], gates: int, steps: int) -> Unfinished:
    step, terms, pictures = int(told["step"]), [str(term) for term in told["terms"]], [int(n) for n in told["pictures"]]
    sides = [[tensors[f"{side}.{i}"] for i in range(n)] for side, n in zip(("content", "style"), pictures, strict=True)]
    expected = {name: (torch.float32, (gates,)) for name in _GATES}
    expected |= {"smoothed": (torch.float64, (2,)), "losses": (torch.float64, (len(terms), step))}
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items() if name in expected}
    if found != expected or len(tensors) != len(expected) + sum(pictures) or len(set(terms)) != len(terms):
        raise ValueError("its tensors are not those of this training")
    if not (1 <= step < steps and all(sides) and bool((tensors["square"] >= 0).all())):
        raise ValueError("its numbers are not those of a training")
    if any(latent.dtype != torch.float32 or latent.ndim != 3 for latents in sides for latent in latents):
        raise ValueError("its pictures are no latents")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("it holds numbers that are not finite")
    smoothed, lowest = tensors["smoothed"].tolist()
    state = TrainingState(step, *(tensors[name] for name in _GATES), smoothed=smoothed, lowest=lowest)
    return Unfinished(state, dict(zip(terms, tensors["losses"].tolist(), strict=True)), *sides)
