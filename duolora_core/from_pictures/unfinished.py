"""A training from pictures that has not ended, in a file: from it the same training goes on as if never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..kept_training import KeptTraining, read_kept, write_kept
from ..loss_scale import DIVISORS
from .lora_in_training import LoraInTraining, Side
from .progress import Checkpoint, require_fitting

MOST_BYTES = 2**33
"""Both LoRAs of UnZipLoRA at rank 64 on SDXL are 2 GB with the optimiser's moments; above rank 250, none goes on."""

_DIVISOR = "scale_divisor"


@dataclass(frozen=True)
class UnfinishedLoras:
    """What is kept of it.

    Attributes:
        losses: {term: one number for each step so far}
        pictures, class_pictures: the latents it trains on, (channels, h, w) each, float32
    """

    checkpoint: Checkpoint
    losses: Mapping[str, Sequence[float]]
    pictures: Sequence[Tensor]
    class_pictures: Sequence[Tensor]


def write_unfinished_loras(path: Path, kept: UnfinishedLoras, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    pictures = {"pictures": kept.pictures, "class": kept.class_pictures}
    checkpoint = kept.checkpoint
    divisor = torch.tensor(checkpoint.scale_divisor, dtype=torch.float64)
    whole = KeptTraining(checkpoint.step, kept.losses, pictures, {**checkpoint.tensors, _DIVISOR: divisor})
    return write_kept(path, whole, fingerprint)


def read_unfinished_loras(
    path: Path, fingerprint: str, loras: Mapping[Side, LoraInTraining], steps: int
) -> UnfinishedLoras:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        loras, steps: of the training that wants to go on

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """

    def understand(kept: KeptTraining) -> UnfinishedLoras:
        pictures, class_pictures = kept.pictures["pictures"], kept.pictures["class"]
        tensors = dict(kept.state)
        checkpoint = Checkpoint(kept.step, tensors, int(tensors.pop(_DIVISOR)))
        if checkpoint.scale_divisor not in DIVISORS:
            raise ValueError("its numbers are not those of this training")
        require_fitting(checkpoint, loras, steps)
        if not pictures:
            raise ValueError("it has no pictures")
        return UnfinishedLoras(checkpoint, kept.losses, pictures, class_pictures)

    return read_kept(path, fingerprint, MOST_BYTES, understand)
