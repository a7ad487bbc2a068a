"""What a training needs in memory before it starts, part by part, and the plans that make it need less.

    weights     as loaded; they are never copied
    factors     both LoRAs of every layer, stacked, in the dtype of the forward; those that are trained themselves also
                in float32, with the optimiser's two moments
    student     what the samples of one forward save for their backward, and what that backward adds
    casts       weights stored in another dtype than the forward's are converted layer by layer, for each use anew, so
                only one at a time is there (`frozen_layer`)
    teacher     the largest forward without gradient
    gradient    of the factors, where they are trained themselves: it grows as the student is given back

A micro-batch bounds the samples of one forward, so `student` and `teacher` are proportional to it. With checkpointing,
`student` is the inputs of all blocks and the activations of one block; it costs one more forward of the student.
`activations` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import MergeConfig
from ..pair import LoraPair
from ..unet_layout import UNetLayout
from .activations import pieces

SLACK = 1.1
"""Room for what is not estimated: an allocator's rounding and gaps, the workspace of kernels. Chosen, not measured."""

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
    """

    weights: int
    element_size: int
    casts: bool


@dataclass(frozen=True)
class Plan:
    """How a training fits into memory; its results do not depend on it.

    Attributes:
        micro_batch: samples per forward, at most
        checkpointing: activations are computed again in the backward instead of being kept
    """

    micro_batch: int
    checkpointing: bool

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch} {'with' if self.checkpointing else 'without'} gradient checkpointing"


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


def estimate(work: Workload, storage: Storage, plan: Plan) -> Estimate:
    """What a training needs under a plan."""
    size = storage.element_size
    found = pieces(work.layout, work.kept, work.latent, size, work.text_tokens, storage.casts)
    students, teachers = min(plan.micro_batch, work.students), min(plan.micro_batch, work.teachers)
    peaks: list[tuple[int, int]] = []  # (activations, converted weight) in the backward of each piece
    held = 0
    for piece in found:
        casts = size * piece.largest * storage.casts
        peaks.append((students * (held + piece.saved + piece.backward), casts))
        again = plan.checkpointing and piece.is_block
        held += piece.input if again else piece.saved
    student, casts = max(peaks, key=sum)
    largest = max(math.prod(layer.shape) for layer in work.layout.layers.values())
    teacher = teachers * max(piece.forward for piece in found) + size * largest * storage.casts
    factors = size * work.factors + 3 * NUMBER * work.trained
    return Estimate(storage.weights, factors, student, casts, teacher, NUMBER * work.trained)


def ladder(
    work: Workload, storage: Storage, micro_batch: int, modes: Sequence[bool] = (False, True)
) -> list[tuple[Plan, Estimate]]:
    """The plans worth trying, best first, each needing less than the one before.

    Smaller micro-batches come before checkpointing: they cost little where one sample fills the device, and
    checkpointing costs one more forward of the student. With checkpointing the micro-batch starts large again.

    Args:
        micro_batch: the most samples per forward that the caller wants; the first plan has as many
        modes: without checkpointing, with it, or both in this order
    """
    sizes = [micro_batch, *(2**i for i in reversed(range(micro_batch.bit_length())) if 2**i < micro_batch)]
    steps: list[tuple[Plan, Estimate]] = []
    for plan in (Plan(size, checkpointing) for checkpointing in modes for size in sizes):
        needs = estimate(work, storage, plan)
        if not steps or needs.beside_weights < steps[-1][1].beside_weights:
            steps.append((plan, needs))
    return steps


def fitting(steps: Sequence[tuple[Plan, Estimate]], free: int) -> Sequence[tuple[Plan, Estimate]]:
    """The rest of a ladder from the first plan that fits, with `SLACK`, into `free` bytes beside the weights.

    Where none fits, the last one: it is an estimate, and trying costs little.
    """
    fits = (place for place, (_, needs) in enumerate(steps) if needs.beside_weights * SLACK <= free)
    return steps[next(fits, len(steps) - 1) :]


def merge_workload(
    pair: LoraPair, sizes: Sequence[tuple[int, int]], config: MergeConfig, text_tokens: int = 77
) -> Workload:
    """The workload of `train`: a gate keeps the rank components that it multiplies.

    Args:
        sizes: (h, w) of the content and of the style latents
        text_tokens: of the longest prompt
    """
    with_cycle = config.cycle_weight != 0
    students = 4 if with_cycle and config.cycle_route == "differentiable" else 2
    kept = {name: sum(pair.ranks(name)) for name in pair.names}
    return pair_workload(pair, kept, sizes, students, 4 if with_cycle else 2, text_tokens)


def pair_workload(
    pair: LoraPair,
    kept: Mapping[str, int],
    sizes: Sequence[tuple[int, int]],
    students: int,
    teachers: int,
    text_tokens: int,
) -> Workload:
    """The workload of a training on both LoRAs whose step has so many samples; only those of one size go together."""
    parts = [low_rank for side in (pair.content, pair.style) for low_rank in side.values()]
    groups = len(set(sizes))
    return Workload(
        layout=pair.layout,
        kept=kept,
        factors=sum(part.up.numel() + part.down.numel() for part in parts),
        latent=max(sizes, key=math.prod),
        students=students // groups,
        teachers=teachers // groups,
        text_tokens=text_tokens,
    )
