"""Merges and ZipLoRA trainings kept on disk until they end; `keeping` says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..duolora_core import Picture, StepReport
from ..duolora_core.training_state import TrainingState
from ..duolora_core.unfinished import Unfinished, read_unfinished, write_unfinished
from .keeping import Curves, Keeper, keeper_of, pictures_sha256
from .sockets import LoadedConcept
from .studio import Studio

MergeKeeper = Keeper[TrainingState, StepReport]


class MergeFile:
    """The state of gates, with the latents that they are trained on.

    Attributes:
        latents: those of the content and the style pictures of a training that goes on, which must stay the same
    """

    def __init__(self, gates: int, steps: int):
        """
        Args:
            gates, steps: of the training
        """
        self.latents: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
        self._gates, self._steps = gates, steps
        self._pictures: tuple[Sequence[Picture], Sequence[Picture]] = (), ()

    def learning_from(self, content: Sequence[Picture], style: Sequence[Picture]) -> None:
        """The pictures to keep with the state."""
        self._pictures = content, style

    def state(self, report: StepReport) -> Callable[[], TrainingState]:
        return report.state

    def write(self, path: Path, fingerprint: str, state: TrainingState, losses: Curves) -> object:
        content, style = ([picture.latent for picture in side] for side in self._pictures)
        return write_unfinished(path, Unfinished(state, losses, content, style), fingerprint)

    def read(self, path: Path, fingerprint: str) -> tuple[TrainingState, Curves]:
        found = read_unfinished(path, fingerprint, self._gates, self._steps)
        self.latents = found.content, found.style
        return found.state, found.losses


def keeper_for(
    studio: Studio,
    concepts: Sequence[LoadedConcept],
    combined_prompt: str | None,
    settings: Mapping[str, Any],
    file: MergeFile,
) -> MergeKeeper:
    """The keeper of a training on a studio's MODEL, which keeps nothing where the options say so.

    Args:
        combined_prompt: None where the training has no use for it
        settings: of the training itself, as plain JSON data
    """
    options = studio.options
    vaes = [studio.vae_for(concept) for concept in concepts if concept.pictures is not None]
    decides = {
        "settings": {name: value for name, value in settings.items() if name != "micro_batch"},
        "concepts": [
            (concept.role, concept.file.sha256, concept.prompt, concept.strength, pictures_sha256(concept.pictures))
            for concept in concepts
        ],
        "combined_prompt": combined_prompt,
        "resolution": studio.resolution,
        "compute": options.compute,
        "own pictures": [
            options.self_made_count,
            options.self_made_steps,
            options.self_made_cfg,
            options.negative_prompt,
        ],
    }
    return keeper_of(options.resume, decides, studio.model, studio.clip, vaes, file)
