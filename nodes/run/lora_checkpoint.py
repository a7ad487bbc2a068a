"""Trainings from pictures as checkpoints on disk; `checkpoint` says when they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ...duolora_core.train_lora import Example, LoraCheckpoint, LoraStepReport, TrainableLora
from ...duolora_core.train_lora.checkpoint_file import SavedLoraCheckpoint, read_lora_checkpoint, write_lora_checkpoint
from ...duolora_core.train_lora.trainable_lora import Side
from .checkpoint import Checkpointer, Curves

LoraCheckpointer = Checkpointer[LoraCheckpoint, LoraStepReport]


class LoraCheckpointFile:
    """The state of LoRAs in training, with the latents that they are trained on.

    Attributes:
        pictures, class_pictures: the latents of a training that is resumed, which must stay the same; None if it begins
    """

    def __init__(self, loras: Mapping[Side, TrainableLora], steps: int):
        """
        Args:
            loras, steps: of the training
        """
        self.pictures: Sequence[Tensor] | None = None
        self.class_pictures: Sequence[Tensor] | None = None
        self._loras, self._steps = loras, steps
        self._examples: tuple[Sequence[Example], Sequence[Example]] = (), ()

    def trains_on(self, examples: Sequence[Example], class_examples: Sequence[Example]) -> None:
        """The examples whose latents are kept with the state."""
        self._examples = examples, class_examples

    def state(self, report: LoraStepReport) -> Callable[[], LoraCheckpoint]:
        return report.checkpoint

    def write(self, path: Path, fingerprint: str, state: LoraCheckpoint, losses: Curves) -> object:
        pictures, class_pictures = ([example.latent for example in each] for each in self._examples)
        return write_lora_checkpoint(path, SavedLoraCheckpoint(state, losses, pictures, class_pictures), fingerprint)

    def read(self, path: Path, fingerprint: str) -> tuple[LoraCheckpoint, Curves]:
        found = read_lora_checkpoint(path, fingerprint, self._loras, self._steps)
        self.pictures, self.class_pictures = found.pictures, found.class_pictures
        return found.checkpoint, found.losses
