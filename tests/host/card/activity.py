"""What a pretended card was asked to do: kernels, syncs, and what a real card would have refused."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

FRAMES_TOLD = 3
_OWN = Path(__file__).resolve().parent.as_posix()


class DeviceMix(RuntimeError):
    """Tensors of both devices in one operation, or a device's memory read as the other's."""


class GradientCrossing(RuntimeError):
    """A gradient that goes from one device to the other: each time it does, the card is idle."""


@dataclass
class Activity:
    """Counts since the start of a flow.

    Attributes:
        kernels: launches by the operator's name
        syncs: waits for the card by what waited, with the lines that asked for it
        faults: every refusal, also one that somebody caught
        steps: (kernels, syncs) so far at the end of each training step
    """

    kernels: Counter[str] = field(default_factory=Counter)
    syncs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def launch(self, name: str) -> None:
        self.kernels[name] += 1

    def sync(self, what: str) -> None:
        self.syncs[f"{what} {asked_by()}"] += 1

    def refuse(self, kind: type[RuntimeError] | type[TypeError], message: str) -> None:
        """Raises as a real card would, and remembers it."""
        self.faults.append(f"{message} {asked_by()}")
        raise kind(message)

    def end_of_step(self) -> None:
        self.steps.append((self.kernels.total(), self.syncs.total()))

    def per_step(self) -> tuple[int, int]:
        """(kernels, syncs) of the busiest training step after the first, which also sets things up."""
        pairs = list(zip(self.steps, self.steps[1:], strict=False))
        kernels = max((after[0] - before[0] for before, after in pairs), default=0)
        syncs = max((after[1] - before[1] for before, after in pairs), default=0)
        return kernels, syncs


def asked_by() -> str:
    """The innermost lines outside of PyTorch and of the pretended card."""
    lines: list[str] = []
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and len(lines) < FRAMES_TOLD:
        name = frame.f_code.co_filename
        if not (name.startswith((_OWN, "<")) or "/site-packages/torch/" in name):
            lines.append(f"{'/'.join(Path(name).parts[-3:])}:{frame.f_lineno}")
        frame = frame.f_back
    return f"({' < '.join(lines)})"
