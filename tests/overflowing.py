"""A model whose gradients overflow as in half precision, above a limit that a test sets."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Overflowing:
    """For a denoiser's `spoil`: x0 as it is; its gradient as it is up to a limit, and infinite above.

    Attributes:
        limits: of each backward pass in turn, the last one of all that follow
        largest: magnitude of each gradient that came back
    """

    limits: list[float]
    largest: list[float] = field(default_factory=list)

    def __call__(self, x0: Tensor) -> Tensor:
        if x0.requires_grad:
            x0.register_hook(self._back)
        return x0

    def _back(self, gradient: Tensor) -> Tensor:
        limit = self.limits[min(len(self.largest), len(self.limits) - 1)]
        self.largest.append(float(gradient.abs().max()))
        return gradient if self.largest[-1] <= limit else torch.full_like(gradient, torch.inf)
