"""What a training needs in memory before it starts, part by part, and the plans that make it need less.

    weights     as loaded; they are never copied
    factors     both LoRAs of every layer, stacked, in the dtype of the forward; those that are trained themselves also
                in float32, with the optimiser's two moments
    student     what the samples of one forward save for their backward, and what that backward adds
    casts       weights stored in another dtype than the forward's are converted layer by layer, for each use anew, so
                only one at a time is there (`frozen_layer`)
    teacher     the largest forward without gradient
    gradient    of the factors, where they are trained themselves: it grows as the student is given back

A micro-batch bounds the samples of one forward, so `student` and `teacher` are proportional to it. Where a block is
checkpointed, it leaves its input alone in `student`, until its backward computes it once more.
`activations` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..layout import UNetLayout
from .activations import pieces
from .attention import Scores

SLACK = 1.1
"""Room for what is not estimated: an allocator's rounding and gaps. Chosen, not measured."""

WORKSPACES = 256 * 2**20
"""Bytes that the libraries of a graphics card (cuBLAS, cuDNN) take for themselves, whatever runs. Chosen, too."""

Checkpointing = Literal["none", "full and half resolution", "all"]
"""The blocks whose activations are computed again in the backward instead of being kept."""

CHECKPOINTED_LEVELS: Mapping[Checkpointing, int] = {
    "none": 0,
    "full and half resolution": 2,
    "all": 100,  # more than any UNet has
}
"""How many levels of resolution that is, from the full one down; in the order in which they cost time.

On SDXL every block frees about as many bytes for its arithmetic (docs/log.md), those of half resolution the most; full
resolution alone would free a thirtieth of what all do.
"""

NUMBER = 4
"""Bytes of a number in float32, in which LoRAs, their gradients and the two moments of AdamW are held."""


@dataclass(frozen=True)
class Workload:
    """What is trained, as far as memory depends on it.

    Attributes:
        layout: the UNet's layers
        kept: {layer: elements per position that its LoRAs keep for the trained numbers' gradient}
        factors: elements of all stacked factors
        latent: (h, w), the larger of both pictures'
        students, teachers: samples of one size that a step evaluates with and without gradient
        text_tokens: of the longest prompt
        trained: elements of the factors that are trained themselves
    """

    layout: UNetLayout
    kept: Mapping[str, int]
    factors: int
    latent: tuple[int, int]
    students: int
    teachers: int
    text_tokens: int = 77
    trained: int = 0


@dataclass(frozen=True)
class Storage:
    """How the model is held while it trains.

    Attributes:
        weights: bytes of the model as it is loaded
        element_size: bytes per number in the forward
        casts: the weights are stored in another dtype than the forward's
        scores: how attention is computed where no fused kernel does it; None: one does
    """

    weights: int
    element_size: int
    casts: bool
    scores: Scores | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """How a training fits into memory; its results do not depend on it.

    Attributes:
        micro_batch: samples per forward, at most
        checkpointing: which activations are computed again in the backward instead of being kept
    """

    micro_batch: int
    checkpointing: Checkpointing

    def recomputes(self, level: int) -> bool:
        """Whether it checkpoints the blocks at which the resolution is halved so often."""
        return level < CHECKPOINTED_LEVELS[self.checkpointing]

    def __str__(self) -> str:
        how = "without" if self.checkpointing == "none" else "with"
        where = "" if self.checkpointing in ("none", "all") else f" at {self.checkpointing}"
        return f"micro-batch {self.micro_batch} {how} gradient checkpointing{where}"


@dataclass(frozen=True)
class Estimate:
    """The parts in bytes; see the module. `student` and `casts` are those of the moment when their sum is largest."""

    weights: int
    factors: int
    student: int
    casts: int
    teacher: int
    gradient: int = 0

    @property
    def beside_weights(self) -> int:
        """What must be free once the model is loaded: no two of student, teacher and a whole gradient are alive."""
        return self.factors + max(self.student + self.casts, self.teacher, self.gradient)

    @property
    def total(self) -> int:
        """The peak of the whole training."""
        return self.weights + self.beside_weights


def estimate(work: Workload, storage: Storage, plan: MemoryPlan) -> Estimate:
    """What a training needs under a plan."""
    size = storage.element_size
    found = pieces(work.layout, work.kept, work.latent, size, work.text_tokens, storage.casts, storage.scores)
    students, teachers = min(plan.micro_batch, work.students), min(plan.micro_batch, work.teachers)
    peaks: list[tuple[int, int]] = []  # (activations, converted weight) in the backward of each piece
    held = 0
    for piece in found:
        casts = size * piece.largest * storage.casts
        peaks.append((students * (held + piece.saved + piece.backward), casts))
        again = piece.level is not None and plan.recomputes(piece.level)
        held += piece.input if again else piece.saved
    student, casts = max(peaks, key=sum)
    largest = max(math.prod(layer.shape) for layer in work.layout.layers.values())
    teacher = teachers * max(piece.forward for piece in found) + size * largest * storage.casts
    factors = size * work.factors + 3 * NUMBER * work.trained
    return Estimate(storage.weights, factors, student, casts, teacher, NUMBER * work.trained)


def candidate_plans(
    work: Workload, storage: Storage, micro_batch: int, modes: Collection[Checkpointing] = CHECKPOINTED_LEVELS
) -> list[tuple[MemoryPlan, Estimate]]:
    """The plans worth trying, best first, each needing less than the one before.

    Smaller micro-batches come before checkpointing: they cost little where one sample fills the device, and
    checkpointing costs up to one more forward of the student. With more of it the micro-batch starts large again.

    Args:
        micro_batch: the most samples per forward that the caller wants; the first plan has as many
        modes: of checkpointing, those that cost least first
    """
    sizes = [micro_batch, *(2**i for i in reversed(range(micro_batch.bit_length())) if 2**i < micro_batch)]
    steps: list[tuple[MemoryPlan, Estimate]] = []
    for plan in (MemoryPlan(size, mode) for mode in modes for size in sizes):
        needs = estimate(work, storage, plan)
        if not steps or needs.beside_weights < steps[-1][1].beside_weights:
            steps.append((plan, needs))
    return steps


def fits(needs: Estimate, free: int) -> bool:
    """Whether it fits, with `SLACK`, into `free` bytes beside the weights."""
    return needs.beside_weights * SLACK <= free


def plans_that_fit(
    steps: Sequence[tuple[MemoryPlan, Estimate]], free: int, modes: Collection[Checkpointing] = CHECKPOINTED_LEVELS
) -> Sequence[tuple[MemoryPlan, Estimate]]:
    """The candidates from the first plan on that fits into `free` bytes beside the weights.

    Where none fits, from the last one on: it is an estimate, and trying costs little.

    Args:
        modes: of checkpointing with which the training may start; the rest of the ladder is for when memory runs out
    """
    allowed = [place for place, (plan, _) in enumerate(steps) if plan.checkpointing in modes]
    return steps[next((place for place in allowed if fits(steps[place][1], free)), allowed[-1]) :]
