"""A long training is not lost: while it runs its state is kept on disk, and the same graph goes on from there.

What "the same" means is a fingerprint of all that decides the course of the training. Memory settings are not in it,
because the result does not depend on them: who runs out of memory changes them and goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..duolora_core import Picture, StepReport
from ..duolora_core.errors import DuoLoraError
from ..duolora_core.lora_file import tensors_sha256
from ..duolora_core.lora_save import VERSION
from ..duolora_core.training_state import TrainingState
from ..duolora_core.unfinished import Unfinished, read_unfinished, write_unfinished
from .host.files import unfinished_folder
from .host.identity import clip_identity, identity
from .sockets import LoadedConcept
from .studio import Studio

MOST_KEPT = 8
"""Trainings of which the state stays; of more, the oldest go."""

_SECONDS = 5.0
"""Between two writes at least, and a hundred times what a write takes: so it costs a hundredth of the time at most."""


class Keeper:
    """Keeps one training on disk for as long as it is not finished.

    Attributes:
        earlier: where the same training stopped before, or None
        notes: what the artist should know of it
    """

    def __init__(self, folder: Path | None, fingerprint: str, gates: int, steps: int):
        """
        Args:
            folder: None to keep nothing
            gates, steps: of the training
        """
        self.notes: list[str] = []
        self.earlier: Unfinished | None = None
        self._folder, self._fingerprint = folder, fingerprint
        self._pictures: tuple[Sequence[Picture], Sequence[Picture]] = (), ()
        self._latest: tuple[TrainingState, Mapping[str, Sequence[float]]] | None = None
        self._next = time.monotonic() + _SECONDS
        if folder is not None and self._path.exists():
            try:
                self.earlier = read_unfinished(self._path, fingerprint, gates, steps)
                self.notes.append(f"went on after step {self.earlier.state.step}, where this training had been stopped")
            except DuoLoraError as error:
                self.notes.append(f"started from the first step: {error}")

    @property
    def _path(self) -> Path:
        return (self._folder or Path()) / f"{self._fingerprint}.safetensors"

    @property
    def state(self) -> TrainingState | None:
        """What the training starts from, if it goes on."""
        return self.earlier.state if self.earlier else None

    @property
    def losses(self) -> Mapping[str, Sequence[float]]:
        """The curves so far of a training that goes on."""
        return self.earlier.losses if self.earlier else {}

    @property
    def latents(self) -> tuple[Sequence[Tensor], Sequence[Tensor]] | None:
        """What the training has learned from so far, which must stay the same."""
        return (self.earlier.content, self.earlier.style) if self.earlier else None

    def learning_from(self, content: Sequence[Picture], style: Sequence[Picture]) -> None:
        """The pictures to keep with the state."""
        self._pictures = content, style

    def after(self, report: StepReport, losses: Mapping[str, Sequence[float]]) -> None:
        """A step is done, and these are the curves so far; writes the state if it is time."""
        if self._folder is not None:
            self._latest = report.state(), losses
            if time.monotonic() >= self._next:
                self.write()

    def write(self) -> None:
        """Writes the state after the latest step. A disk that is full ends the keeping and not the training."""
        if self._folder is None or self._latest is None:
            return
        started, (state, losses) = time.monotonic(), self._latest
        curves = {term: curve[: state.step] for term, curve in losses.items()}
        content, style = ([picture.latent for picture in side] for side in self._pictures)
        try:
            write_unfinished(self._path, Unfinished(state, curves, content, style), self._fingerprint)
        except DuoLoraError as error:
            self.notes.append(f"this training could not have been gone on with after a crash: {error}")
            self._folder = None
            return
        _keep_newest(self._folder)
        ended = time.monotonic()
        self._next = ended + max(_SECONDS, 100 * (ended - started))

    def finished(self) -> None:
        """The result is there, or there is none to be had this way: nothing to go on from any more."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # it stays, and is one of those that go when there are more
                self._path.unlink(missing_ok=True)


def keeper_for(
    studio: Studio,
    concepts: Sequence[LoadedConcept],
    combined_prompt: str,
    settings: Mapping[str, Any],
    gates: int,
    steps: int,
) -> Keeper:
    """The keeper of a training on a studio's MODEL, which keeps nothing where the options say so.

    Args:
        settings: of the training itself, as plain JSON data
    """
    if not studio.options.resume:
        return Keeper(None, "", gates, steps)
    options = studio.options
    with_pictures = any(concept.pictures is not None for concept in concepts)
    decides = {
        "version": VERSION,
        "settings": {name: value for name, value in settings.items() if name != "micro_batch"},
        "concepts": [
            (
                concept.role,
                concept.file.sha256,
                concept.prompt,
                concept.strength,
                None if concept.pictures is None else tensors_sha256({"pictures": concept.pictures}),
            )
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
        "model": identity(studio.model),
        "clip": clip_identity(studio.clip),
        "vae": identity(studio.vae.patcher) if with_pictures else None,
    }
    fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return Keeper(unfinished_folder(), fingerprint, gates, steps)


def _keep_newest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process is tidying up as well
        kept = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-MOST_KEPT]:
            path.unlink(missing_ok=True)
