"""GLoRA: ΔW = α/r · (W A₁ A₂ + B₁ B₂) (arXiv 2306.07967)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import as_float, known_weight, require_shape, shaped


@dataclass(frozen=True)
class Glora:
    """Attributes: `a1` (in, r), `a2` (r, in), `b1` (out, r), `b2` (r, inputs); older files have each pair swapped."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float | None
    kind = "GLoRA"
    needs_weight = True

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        weight = known_weight(weight, self.kind)
        a1, a2, b1, b2 = (as_float(t).flatten(1) for t in (self.a1, self.a2, self.b1, self.b2))
        if _is_old_glora(a1, a2, b1, b2, weight):
            a1, a2, b1, b2 = a2, a1, b2, b1
        if a1.shape != (weight.shape[1], a2.shape[0]) or a2.shape[1] != weight.shape[1]:
            raise ValueError(f"a1 {tuple(self.a1.shape)} and a2 {tuple(self.a2.shape)} do not fit {tuple(shape)}")
        require_shape(b1.shape[0], b2.shape[1], shape)
        scale = 1.0 if self.alpha is None else self.alpha / a2.shape[0]
        through = torch.einsum("oi...,ij,jk->ok...", weight, a1, a2)
        return shaped((through + shaped(b1 @ b2, shape)).mul_(scale), shape)


def _is_old_glora(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor, weight: Tensor) -> bool:
    """Files of LyCORIS before 2.0 call the narrow factor first. Where both readings fit, a square layer is taken as
    old, as ComfyUI does."""
    old = b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]
    new = b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]
    return old and (not new or (a2.shape[0] == weight.shape[0] == weight.shape[1]))
