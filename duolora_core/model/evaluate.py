"""Batched evaluations of an attached model: what its networks put out, and the gradient of what they should.

Every sample names its own network (a branch), so teachers and students of different kinds share a forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .branches import Branch
from .denoiser import Denoiser, model_output


class Networks(Protocol):
    """A model with LoRAs attached: several networks in one, of which each sample goes through one."""

    def branches(self, branches: Sequence[Branch]) -> AbstractContextManager[None]:
        """Sets the network of each sample of the forwards inside."""
        ...


@dataclass(frozen=True)
class Sample:
    """One sample of a batched evaluation, and the branch that it goes through."""

    branch: Branch
    x: Tensor  # (channels, h, w)
    condition: Any


@dataclass(frozen=True)
class Target:
    """A network output that a student sample should match."""

    term: str
    weight: float
    output: Tensor  # (channels, h, w)


def evaluate(
    denoiser: Denoiser, networks: Networks, samples: Sequence[Sample], sigma: Tensor, micro_batch: int
) -> list[Tensor]:
    """The x0 estimates of the samples, in order; samples of one shape share a forward of up to `micro_batch`."""
    results: dict[int, Tensor] = {}
    for indices in _chunks(samples, micro_batch):
        chunk = [samples[i] for i in indices]
        with networks.branches([sample.branch for sample in chunk]):
            denoised = _forward(denoiser, chunk, sigma)
        results |= dict(zip(indices, denoised, strict=True))
    return [results[i] for i in range(len(samples))]


def backward(
    denoiser: Denoiser,
    gated: Networks,
    students: Sequence[tuple[Sample, list[Target]]],
    sigma: Tensor,
    micro_batch: int,
    scale: float,
) -> dict[str, float]:
    """Adds the gradient of every student, times `scale`, to the gates; returns each term, and their weighted sum."""
    losses: dict[str, float] = {"total": 0.0}
    samples = [sample for sample, _ in students]
    for indices in _chunks(samples, micro_batch):
        chunk = [samples[i] for i in indices]
        with gated.branches([sample.branch for sample in chunk]):
            denoised = _forward(denoiser, chunk, sigma)
            loss = denoised.new_zeros(())
            for i, sample, x0 in zip(indices, chunk, denoised, strict=True):
                student = model_output(sample.x, x0, sigma, denoiser.prediction)
                for target in students[i][1]:
                    term = torch.nn.functional.mse_loss(student, target.output)
                    losses[target.term] = float(term.detach())
                    loss = loss + target.weight * term
            (loss * scale).backward()  # inside `branches`: a checkpointed model runs forward again here
        losses["total"] += float(loss.detach())
    return losses


def _forward(denoiser: Denoiser, chunk: Sequence[Sample], sigma: Tensor) -> Tensor:
    x = torch.stack([sample.x for sample in chunk])  # (batch, channels, h, w)
    return denoiser(x, sigma.expand(len(chunk)), [sample.condition for sample in chunk]).to(torch.float32)


def _chunks(samples: Sequence[Sample], micro_batch: int) -> Iterator[list[int]]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: samples[i].branch):  # samples of one branch share their products
        by_shape.setdefault(tuple(samples[i].x.shape), []).append(i)
    for indices in by_shape.values():
        for start in range(0, len(indices), micro_batch):
            yield indices[start : start + micro_batch]
