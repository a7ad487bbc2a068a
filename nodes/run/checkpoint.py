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
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from ...duolora_core.errors import DuoLoraError
from ...duolora_core.lora.metadata import VERSION
from ...duolora_core.lora.read import tensors_sha256
from ...duolora_core.merge.trainer import Report
from ..host.files import checkpoint_folder
from ..host.identity import clip_identity, identity, vae_identity

Curves = Mapping[str, Sequence[float]]
"""{term of the loss: one number for each step}"""

MOST_KEPT, MOST_BYTES = 8, 8 * 2**30
"""Trainings of which the state stays, and their size together; of more, the oldest go, but never the newest."""

_SECONDS = 1.0
"""Between two writes at least, and a hundred times what a write takes: so it costs a hundredth of the time at most."""


class State(Protocol):
    """What a training can be resumed from."""

    @property
    def step(self) -> int:
        """The steps behind it."""
        ...


StateT = TypeVar("StateT", bound=State)
ReportT = TypeVar("ReportT", bound=Report, contravariant=True)


class CheckpointFile(Protocol[StateT, ReportT]):
    """How the state of one kind of training is taken, written and read."""

    def state(self, report: ReportT) -> Callable[[], StateT]:
        """Copies it, when called before the next step is taken."""
        ...

    def write(self, path: Path, fingerprint: str, state: StateT, losses: Curves) -> object:
        """Raises DuoLoraError."""
        ...

    def read(self, path: Path, fingerprint: str) -> tuple[StateT, Curves]:
        """Raises DuoLoraError."""
        ...


class Checkpointer(Generic[StateT, ReportT]):
    """The checkpoint of one training on disk, for as long as it is not finished.

    Attributes:
        state: what the training starts from, if it goes on
        losses: the curves so far of a training that is resumed
        notes: what the artist should know of it
        fingerprint: of all that decides its course
    """

    def __init__(self, folder: Path | None, fingerprint: str, file: CheckpointFile[StateT, ReportT]):
        """
        Args:
            folder: None to write nothing
        """
        self.notes: list[str] = []
        self.state: StateT | None = None
        self.losses: Curves = {}
        self.fingerprint = fingerprint
        self._folder, self._file = folder, file
        self._latest: tuple[Callable[[], StateT], Curves] | None = None
        self._next = time.monotonic() + _SECONDS
        if folder is not None and self._path.exists():
            try:
                self.state, self.losses = file.read(self._path, fingerprint)
                self.notes.append(f"resumed after step {self.state.step}, where this training had been stopped")
            except DuoLoraError as error:
                self.notes.append(f"started from the first step: {error}")

    @property
    def _path(self) -> Path:
        return (self._folder or Path()) / f"{self.fingerprint}.safetensors"

    def after(self, report: ReportT, losses: Curves) -> None:
        """A step is done, and these are the curves so far; writes the state if it is time."""
        if self._folder is not None:
            self._latest = self._file.state(report), losses
            if time.monotonic() >= self._next:
                self.write()

    def write(self) -> None:
        """Writes the state after the latest step. A disk that is full ends the checkpoints and not the training."""
        if self._folder is None or self._latest is None:
            return
        started, (take, losses) = time.monotonic(), self._latest
        state = take()
        curves = {term: curve[: state.step] for term, curve in losses.items()}
        try:
            self._file.write(self._path, self.fingerprint, state, curves)
        except DuoLoraError as error:
            self.notes.append(f"this training could not have been resumed after a crash: {error}")
            self._folder = None
            return
        _keep_newest(self._folder)
        ended = time.monotonic()
        self._next = ended + max(_SECONDS, 100 * (ended - started))

    def stays(self) -> None:
        """The training came to an early end: its state stays, whatever becomes of the result."""
        self.write()
        self._folder = None

    def finished(self) -> None:
        """The result is there, or there is none to be had this way: nothing to resume from any more."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # it stays, and is one of those that go when there are more
                self._path.unlink(missing_ok=True)


def checkpointer_of(
    resume: bool,
    decides: Mapping[str, Any],
    model: Any,
    clip: Any,
    vaes: Sequence[Any],
    file: CheckpointFile[StateT, ReportT],
) -> Checkpointer[StateT, ReportT]:
    """The checkpointer of a training on a MODEL, which writes nothing where it is not to be resumed.

    Args:
        decides: what decides its course beside MODEL, CLIP and VAEs, as plain JSON data
    """
    whole = {
        "version": VERSION,
        **decides,
        "model": identity(model),
        "clip": clip_identity(clip),
        "vaes": [vae_identity(vae) for vae in vaes],
    }
    fingerprint = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return Checkpointer(checkpoint_folder() if resume else None, fingerprint, file)


def pictures_sha256(batches: Sequence[Tensor] | None) -> str | None:
    """Of IMAGE batches, in their order."""
    return None if batches is None else tensors_sha256({str(i): batch for i, batch in enumerate(batches)})


def _keep_newest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process is tidying up as well
        newest_first = sorted(folder.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime_ns)
        size = 0
        for place, path in enumerate(newest_first):
            size += path.stat().st_size
            if place >= MOST_KEPT or (place and size > MOST_BYTES):
                path.unlink(missing_ok=True)
