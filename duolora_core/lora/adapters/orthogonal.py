"""OFT and BOFT: the weight turned by block-diagonal rotations R (arXiv 2306.07280, 2311.06243)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import as_float, known_weight, shaped


@dataclass(frozen=True)
class Oft:
    """Attributes: `blocks` (count, size, size), unconstrained; `constraint` bounds ‖Q‖, 0 for none."""

    blocks: Tensor
    constraint: float
    kind = "OFT"
    needs_weight = True

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        weight = known_weight(weight, self.kind)
        count, size = self.blocks.shape[:2]
        if count * size != weight.shape[0]:
            raise ValueError(f"{count} blocks of {size} do not make the layer's {weight.shape[0]} outputs")
        turned = cayley(self.blocks, self.constraint) - torch.eye(size, device=weight.device)  # (count, size, size)
        blocks = weight.flatten(1).unflatten(0, (count, size))  # (count, size, inputs)
        return shaped((turned.transpose(1, 2) @ blocks).flatten(0, 1), shape)


@dataclass(frozen=True)
class Boft:
    """Attributes: `blocks` (stages, count, size, size); `constraint` as of Oft; `rescale` (out, 1) or None."""

    blocks: Tensor
    constraint: float
    rescale: Tensor | None
    kind = "BOFT"
    needs_weight = True

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        weight = known_weight(weight, self.kind)
        count, size = self.blocks.shape[1:3]
        if count * size != weight.shape[0]:
            raise ValueError(f"{count} blocks of {size} do not make the layer's {weight.shape[0]} outputs")
        turned = weight.flatten(1)  # (out, inputs)
        for stage, rotation in enumerate(cayley(self.blocks, self.constraint)):
            reach = 2**stage * (size // 2)
            paired = turned.unflatten(0, (-1, 2, reach)).transpose(1, 2).flatten(0, 2).unflatten(0, (count, size))
            paired = rotation @ paired  # (count, size, inputs)
            turned = paired.flatten(0, 1).unflatten(0, (-1, reach, 2)).transpose(1, 2).flatten(0, 2)
        if self.rescale is not None:
            turned = turned * as_float(self.rescale).reshape(-1, 1)
        return shaped(turned - weight.flatten(1), shape)


def cayley(blocks: Tensor, constraint: float) -> Tensor:
    """The rotations R = (I + Q)(I − Q)⁻¹ of Q = B − Bᵀ, shrunk to ‖Q‖ ≤ constraint where that is above 0.

    Args:
        blocks: (…, size, size)
    """
    blocks = as_float(blocks)
    q = blocks - blocks.transpose(-1, -2)
    length = float(q.norm()) + 1e-8
    if 0 < constraint < length:
        q = q * (constraint / length)
    one = torch.eye(q.shape[-1], device=q.device)
    return torch.linalg.solve(one - q, one + q, left=False)
