"""The gates that were trained last, kept in memory: an input that does not decide them trains none again.

The host runs a node again whenever any of its inputs has changed, also one that only the metadata depend on, such as
the combined prompt of a merge without the cycle loss.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

MOST_KEPT = 4
"""As many merges as one graph is likely to hold; the gates of one are some hundred KB, a router of three
LoRAs of rank 64 100 MB."""

_latest: dict[Hashable, TrainedGates] = {}


@dataclass(frozen=True)
class TrainedGates:
    """What a training of gates came to.

    Attributes:
        values: (total gates,), float32 on the CPU
        router: see `LoraStack`; empty where there is none
        losses: {term: one number for each step}
        log_lines: how it went, in plain words
        pictures: how many of each LoRA it was trained on
        steps: that it took; fewer than asked for where it ended early
    """

    values: Tensor
    router: Mapping[str, Tensor]
    losses: Mapping[str, Sequence[float]]
    log_lines: Sequence[str]
    pictures: Sequence[int]
    steps: int


def recalled(key: Hashable) -> TrainedGates | None:
    """Those that were remembered under an equal key, if they are still there."""
    return _latest.get(key)


def remember(key: Hashable, trained: TrainedGates) -> None:
    """Keeps them in place of the oldest."""
    _latest[key] = trained
    while len(_latest) > MOST_KEPT:
        del _latest[next(iter(_latest))]
