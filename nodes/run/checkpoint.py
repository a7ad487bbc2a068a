"""A long training is not lost: while it runs, checkpoints are written, and the same graph resumes from the last.

What "the same" means is a fingerprint of all that decides the course of the training. Memory settings are not in it,
because the result does not depend on them: who runs out of memory changes them and goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...duolora_core import Picture, StepReport
from ...duolora_core.checkpoint.file import read_checkpoint, write_checkpoint
from ...duolora_core.checkpoint.state import Checkpoint
from ...duolora_core.errors import DuoLoraError
from ...duolora_core.lora.metadata import VERSION
from ...duolora_core.lora.read import tensors_sha256
from ...duolora_core.train_lora import Example
from ..host.files import checkpoint_folder
from ..host.identity import clip_identity, identity, vae_identity
from .inputs import Inputs

Curves = Mapping[str, Sequence[float]]
"""{term of the loss: one number for each step}"""

MOST_KEPT, MOST_BYTES = 8, 8 * 2**30
"""Trainings of which the state stays, and their size together; of more, the oldest go, but never the newest."""

_SECONDS = 1.0
"""Between two writes at least, and a hundred times what a write takes: so it costs a hundredth of the time at most."""


class Checkpointer:
    """The checkpoint of one training on disk, for as long as it is not finished; none where the options say so.

    Attributes:
        resume: what the training is resumed from, if it is
        pictures: {whose: latents} that it trains on, kept with it; known from the start where it is resumed
        notes: what the artist should know of it
        fingerprint: of all that decides its course
    """

    def __init__(
        self, inputs: Inputs, start: Checkpoint, steps: int, vaes: Sequence[Any], samples: bool, **decides: Any
    ):
        """
        Args:
            start, steps: see `read_checkpoint`
            vaes: that encode its pictures
            samples: it trains on sampled pictures, too
            decides: what else decides its course: plain data, tensors and dataclasses of these
        """
        self.fingerprint = _fingerprint(inputs, vaes, samples, decides)
        self.resume: Checkpoint | None = None
        self.pictures: Mapping[str, Sequence[Tensor]] = {}
        self.notes: list[str] = []
        self._path = checkpoint_folder() / f"{self.fingerprint}.safetensors" if inputs.options.resume else None
        self._latest: tuple[Callable[[], Checkpoint], Curves] | None = None
        self._next = time.monotonic() + _SECONDS
        if self._path is not None and self._path.exists():
            try:
                self.resume = read_checkpoint(self._path, self.fingerprint, start, steps)
                self.pictures = self.resume.pictures
                self.notes.append(f"resumed after step {self.resume.step}, where this training had been stopped")
            except DuoLoraError as error:
                self.notes.append(f"started from the first step: {error}")

    def trains_on(self, **pictures: Sequence[Picture] | Sequence[Example]) -> None:
        """The pictures whose latents are kept with it."""
        self.pictures = {whose: [each.latent for each in some] for whose, some in pictures.items() if some}

    def after(self, report: StepReport, losses: Curves) -> None:
        """A step is done, and these are the curves so far; writes them if it is time."""
        self._latest = report.checkpoint, losses
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Writes what the latest step left. A disk that is full ends the checkpoints and not the training."""
        if self._path is None or self._latest is None:
            return
        started, (capture, losses) = time.monotonic(), self._latest
        checkpoint = capture()
        curves = {term: curve[: checkpoint.step] for term, curve in losses.items()}
        try:
            whole = replace(checkpoint, losses=curves, pictures=self.pictures)
            write_checkpoint(self._path, whole, self.fingerprint)
        except DuoLoraError as error:
            self.notes.append(f"this training could not have been resumed after a crash: {error}")
            self._path = None
            return
        _keep_newest(self._path.parent)
        ended = time.monotonic()
        self._next = ended + max(_SECONDS, 100 * (ended - started))

    def stays(self) -> None:
        """The training came to an early end: its state stays, whatever becomes of the result."""
        self.write()
        self._path = None

    def finished(self) -> None:
        """The result is there, or there is none to be had this way: nothing to resume from any more."""
        if self._path is not None:
            with contextlib.suppress(OSError):  # it stays, and is one of those that go when there are more
                self._path.unlink(missing_ok=True)


def _fingerprint(inputs: Inputs, vaes: Sequence[Any], samples: bool, decides: Mapping[str, Any]) -> str:
    whole = {
        "version": VERSION,
        "resolution": inputs.resolution,
        "compute": inputs.options.compute,
        "sampled images": inputs.options.sampled_images if samples else None,
        "model": identity(inputs.model),
        "clip": clip_identity(inputs.clip),
        "vaes": [vae_identity(vae) for vae in vaes],
        **decides,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON cannot hold as it is: a tensor by its hash, a dataclass without memory settings."""
    if isinstance(value, Tensor):
        return tensors_sha256({"": value})
    held = {field.name: getattr(value, field.name) for field in fields(value) if field.name != "micro_batch"}
    return {type(value).__name__: held}


def _keep_newest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process is tidying up as well
        newest_first = sorted(folder.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime_ns)
        size = 0
        for place, path in enumerate(newest_first):
            size += path.stat().st_size
            if place >= MOST_KEPT or (place and size > MOST_BYTES):
                path.unlink(missing_ok=True)
