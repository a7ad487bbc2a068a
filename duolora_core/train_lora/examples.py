"""What a step is trained on: pictures, their noise and their noise levels, decided by the seed and the step alone.

Nothing is carried from one step to the next, so a training that is resumed from a saved step sees exactly what it would
have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..model.branches import Branch

Term = Literal["pictures", "class", "probe"]


@dataclass(frozen=True)
class Example:
    """One picture with its prompt.

    Attributes:
        latent: (channels, h, w), as the UNet sees it (already scaled by the latent format)
        condition: of its prompt, as the denoiser takes it
        branch: the LoRAs that it goes through: all (`sum`), or one of them
    """

    latent: Tensor
    condition: Any
    branch: Branch = "sum"


@dataclass(frozen=True)
class NoiseSample:
    """One sample of a step.

    Attributes:
        sigma: (), float32
        noise: as the example's latent, float32; on the denoiser's device, as sigma is
        term: the loss that it counts for
    """

    example: Example
    sigma: Tensor
    noise: Tensor
    term: Term


def draw_samples(
    examples: Sequence[Example], sigmas: Tensor, count: int, step: int, seed: int, term: Term = "pictures"
) -> list[NoiseSample]:
    """The samples of a step, all of one size.

    A step belongs to one picture: every picture has its turn once in each round, each round in another order. The rest
    of the batch are others of the same size. So every picture is equally likely, however many share its size.

    Args:
        sigmas: (timesteps,), of which each sample draws one, all equally likely
        step: counted from 0
    """
    generator = seeded(seed, term, "step", step)
    round_, place = divmod(step, len(examples))
    first = int(torch.randperm(len(examples), generator=seeded(seed, term, "round", round_))[place])
    shape = examples[first].latent.shape
    others = [i for i, other in enumerate(examples) if other.latent.shape == shape and i != first]
    order = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()]
    chosen = [([first, *order])[i % (len(order) + 1)] for i in range(count)]
    timesteps = torch.randint(len(sigmas), (count,), generator=generator).tolist()
    return [
        NoiseSample(
            examples[i],
            sigmas[timestep].to(torch.float32),
            torch.randn(shape, generator=generator).to(sigmas.device),
            term,
        )
        for i, timestep in zip(chosen, timesteps, strict=True)
    ]


def seeded(seed: int, *what: object) -> torch.Generator:
    """A generator of its own for each purpose; neighbouring seeds and steps have nothing in common."""
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
