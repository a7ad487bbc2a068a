"""Merges and ZipLoRA trainings as checkpoints on disk; `checkpoint` says when they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...duolora_core import Picture, StepReport
from ...duolora_core.checkpoint.gates import GateCheckpoint
from ...duolora_core.checkpoint.merge_file import MergeCheckpoint, read_merge_checkpoint, write_merge_checkpoint
from .checkpoint import Checkpointer, Curves, checkpointer_of, pictures_sha256
from .loaded_lora import LoadedLora
from .merge_inputs import MergeInputs

MergeCheckpointer = Checkpointer[GateCheckpoint, StepReport]


class MergeCheckpointFile:
    """The state of gates, with the latents that they are trained on.

    Attributes:
        latents: those of the content and the style pictures of a training that is resumed, which must stay the same
    """

    def __init__(self, gates: int, steps: int):
        """
        Args:
            gates, steps: of the training
        """
        self.latents: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
        self._gates, self._steps = gates, steps
        self._pictures: tuple[Sequence[Picture], Sequence[Picture]] = (), ()

    def trains_on(self, content: Sequence[Picture], style: Sequence[Picture]) -> None:
        """The pictures to keep with the state."""
        self._pictures = content, style

    def state(self, report: StepReport) -> Callable[[], GateCheckpoint]:
        return report.checkpoint

    def write(self, path: Path, fingerprint: str, state: GateCheckpoint, losses: Curves) -> object:
        content, style = ([picture.latent for picture in side] for side in self._pictures)
        return write_merge_checkpoint(path, MergeCheckpoint(state, losses, content, style), fingerprint)

    def read(self, path: Path, fingerprint: str) -> tuple[GateCheckpoint, Curves]:
        found = read_merge_checkpoint(path, fingerprint, self._gates, self._steps)
        self.latents = found.content, found.style
        return found.state, found.losses


def merge_checkpointer(
    inputs: MergeInputs,
    loras: Sequence[LoadedLora],
    combined_prompt: str | None,
    settings: Mapping[str, Any],
    file: MergeCheckpointFile,
) -> MergeCheckpointer:
    """The checkpointer of a training on a MODEL, which keeps nothing where the options say so.

    Args:
        combined_prompt: None where the training has no use for it
        settings: of the training itself, as plain JSON data
    """
    options = inputs.options
    vaes = [inputs.vae_for(lora) for lora in loras if lora.pictures is not None]
    decides = {
        "settings": {name: value for name, value in settings.items() if name != "micro_batch"},
        "concepts": [
            (lora.role, lora.file.sha256, lora.prompt, lora.strength, pictures_sha256(lora.pictures))
            + ((dict(lora.placing),) if lora.placing else ())
            for lora in loras
        ],
        "combined_prompt": combined_prompt,
        "resolution": inputs.resolution,
        "compute": options.compute,
        "own pictures": [
            options.sampled_images_count,
            options.sampled_images_steps,
            options.sampled_images_cfg,
            options.negative_prompt,
        ],
    }
    return checkpointer_of(options.resume, decides, inputs.model, inputs.clip, vaes, file)
