"""Trainings from pictures kept on disk until they end; `keeping` says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..duolora_core.from_pictures import Checkpoint, Example, LearnReport, LoraInTraining
from ..duolora_core.from_pictures.lora_in_training import Side
from ..duolora_core.from_pictures.unfinished import UnfinishedLoras, read_unfinished_loras, write_unfinished_loras
from .keeping import Curves, Keeper

LoraKeeper = Keeper[Checkpoint, LearnReport]


class LorasFile:
    """The state of LoRAs in training, with the latents that they are trained on.

    Attributes:
        pictures, class_pictures: the latents of a training that goes on, which must stay the same; None if it begins
    """

    def __init__(self, loras: Mapping[Side, LoraInTraining], steps: int):
        """
        Args:
            loras, steps: of the training
        """
        self.pictures: Sequence[Tensor] | None = None
        self.class_pictures: Sequence[Tensor] | None = None
        self._loras, self._steps = loras, steps
        self._examples: tuple[Sequence[Example], Sequence[Example]] = (), ()

    def learning_from(self, examples: Sequence[Example], class_examples: Sequence[Example]) -> None:
        """The examples whose latents are kept with the state."""
        self._examples = examples, class_examples

    def state(self, report: LearnReport) -> Callable[[], Checkpoint]:
        return report.checkpoint

    def write(self, path: Path, fingerprint: str, state: Checkpoint, losses: Curves) -> object:
        pictures, class_pictures = ([example.latent for example in each] for each in self._examples)
        return write_unfinished_loras(path, UnfinishedLoras(state, losses, pictures, class_pictures), fingerprint)

    def read(self, path: Path, fingerprint: str) -> tuple[Checkpoint, Curves]:
        found = read_unfinished_loras(path, fingerprint, self._loras, self._steps)
        self.pictures, self.class_pictures = found.pictures, found.class_pictures
        return found.checkpoint, found.losses
