"""What a host's process holds in memory while it works, node by node, and an end to it before the machine runs out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE = 1.5
"""GB of the whole machine; with less the process is ended, so that no other one is."""
SECONDS = 0.1


@dataclass(frozen=True)
class Held:
    """A process's memory in GB (10⁹ bytes).

    Attributes:
        own: anonymous pages, which nothing but the process's end or its own will gives back
        mapped: pages of files that are mapped, which the system drops where memory is short
    """

    own: float
    mapped: float

    @property
    def resident(self) -> float:
        return self.own + self.mapped


def held_by(process: int) -> Held:
    """Raises ProcessLookupError or FileNotFoundError once there is no such process."""
    sizes = _table(Path(f"/proc/{process}/status"))
    return Held(sizes["RssAnon"], sizes["RssFile"])


def available() -> float:
    """GB that programs may still take on this machine, without swapping."""
    return _table(Path("/proc/meminfo"))["MemAvailable"]


def _table(path: Path) -> dict[str, float]:
    """{name: GB} of the lines in kB."""
    lines = (line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 / 1e9 for words in lines if words[-1] == "kB"}


@dataclass
class Phase:
    """What was seen while one node ran: how long, and the most of each kind of memory."""

    seconds: float = 0.0
    own: float = 0.0
    mapped: float = 0.0
    resident: float = 0.0


class Watch:
    """Looks at a process ten times a second while the block runs; ends it when the machine is about to run out.

    Attributes:
        phases: {node type: Phase}, in the order in which they began
        ended_in: the node in which the process was ended, or None
    """

    def __init__(self, process: int, running: Callable[[], str]) -> None:
        """`running` says which node runs now."""
        self._process, self._running = process, running
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.phases: dict[str, Phase] = {}
        self.ended_in: str | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def peak(self) -> Phase:
        """The most of each kind in all phases, and their seconds together."""
        every = list(self.phases.values())
        return Phase(
            sum(each.seconds for each in every),
            max(each.own for each in every),
            max(each.mapped for each in every),
            max(each.resident for each in every),
        )

    def _look(self) -> None:
        before = time.monotonic()
        while not self._done.wait(SECONDS):
            try:
                held = held_by(self._process)
            except (ProcessLookupError, FileNotFoundError, KeyError):  # it has ended, perhaps while it was read
                return
            now = time.monotonic()
            phase = self.phases.setdefault(self._running(), Phase())
            phase.seconds += now - before
            phase.own, phase.mapped = max(phase.own, held.own), max(phase.mapped, held.mapped)
            phase.resident = max(phase.resident, held.resident)
            before = now
            if available() < LEAST_FREE:
                self.ended_in = self._running()
                os.killpg(self._process, signal.SIGKILL)
                return
