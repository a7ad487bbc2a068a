"""The checkpoint of LoRAs in training, in a file: from it the training resumes as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.file import CheckpointData, read_checkpoint, write_checkpoint
from ..checkpoint.gates import DIVISORS
from .checkpoint import LoraCheckpoint, require_fitting
from .trainable_lora import Side, TrainableLora

MOST_BYTES = 2**33
"""Both LoRAs of UnZipLoRA at rank 64 on SDXL are 2 GB with the optimiser's moments; above rank 250, none is resumed."""

_DIVISOR = "scale_divisor"


@dataclass(frozen=True)
class SavedLoraCheckpoint:
    """What such a file holds.

    Attributes:
        losses: {term: one number for each step so far}
        pictures, class_pictures: the latents it trains on, (channels, h, w) each, float32
    """

    checkpoint: LoraCheckpoint
    losses: Mapping[str, Sequence[float]]
    pictures: Sequence[Tensor]
    class_pictures: Sequence[Tensor]


def write_lora_checkpoint(path: Path, saved: SavedLoraCheckpoint, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    pictures = {"pictures": saved.pictures, "class": saved.class_pictures}
    checkpoint = saved.checkpoint
    divisor = torch.tensor(checkpoint.scale_divisor, dtype=torch.float64)
    whole = CheckpointData(checkpoint.step, saved.losses, pictures, {**checkpoint.tensors, _DIVISOR: divisor})
    return write_checkpoint(path, whole, fingerprint)


def read_lora_checkpoint(
    path: Path, fingerprint: str, loras: Mapping[Side, TrainableLora], steps: int
) -> SavedLoraCheckpoint:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        loras, steps: of the training that is to be resumed

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """

    def parse(saved: CheckpointData) -> SavedLoraCheckpoint:
        pictures, class_pictures = saved.pictures["pictures"], saved.pictures["class"]
        tensors = dict(saved.state)
        checkpoint = LoraCheckpoint(saved.step, tensors, int(tensors.pop(_DIVISOR)))
        if checkpoint.scale_divisor not in DIVISORS:
            raise ValueError("its numbers are not those of this training")
        require_fitting(checkpoint, loras, steps)
        if not pictures:
            raise ValueError("it has no pictures")
        return SavedLoraCheckpoint(checkpoint, saved.losses, pictures, class_pictures)

    return read_checkpoint(path, fingerprint, MOST_BYTES, parse)
