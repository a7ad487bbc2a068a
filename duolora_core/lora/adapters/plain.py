"""LoRA and LoCon: a change that is low-rank as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import require_shape, shaped


@dataclass(frozen=True)
class PlainLora:
    """LoRA and LoCon, ΔW = alpha / rank · up · down: low-rank as it is.

    Attributes:
        up: (out, rank) or (out, rank, 1, 1)
        down: (rank, in) or (rank, in, kh, kw); with `mid` (rank, in, 1, 1)
        mid: (rank, rank, kh, kw) of a Tucker-factored convolution, else None
        alpha: None means that the scale alpha / rank is 1
    """

    up: Tensor
    down: Tensor
    mid: Tensor | None
    alpha: float | None
    kind = "LoRA"
    needs_weight = False

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def factors(self) -> tuple[Tensor, Tensor]:
        """(out, rank) and (rank, inputs) in float32, the scale not multiplied in; copies."""
        up, down = (t.detach().to(torch.float32, copy=True) for t in (self.up, self.down))
        if self.mid is not None:
            mid = self.mid.detach().to(torch.float32)
            down = torch.einsum("rskl,si->rikl", mid, down.flatten(1))  # (rank, in, kh, kw)
        return up.flatten(1), down.flatten(1)

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs) of the flat weight that it changes."""
        inputs = math.prod(self.down.shape[1:])
        return self.up.shape[0], inputs if self.mid is None else inputs * math.prod(self.mid.shape[2:])

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        require_shape(*self.size, shape)
        up, down = self.factors()
        return shaped(up @ down.mul_(self.scale), shape)
