"""What every adapter is, and what their formulas share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Adapter(Protocol):
    """The change of one layer in a form of its own."""

    @property
    def kind(self) -> str:
        """What messages call it."""
        ...

    @property
    def needs_weight(self) -> bool:
        """Whether the change depends on the checkpoint's own weight."""
        ...

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        """ΔW of `shape` in float32.

        Args:
            shape: of the model's weight, (out, in) or (out, in, kh, kw)
            weight: that weight in float32; may be None where `needs_weight` is false

        Raises:
            ValueError: the tensors fit neither each other nor the shape; says which.
        """
        ...


def known_weight(weight: Tensor | None, kind: str) -> Tensor:
    if weight is None:
        raise ValueError(f"a {kind} change depends on the checkpoint's own weight, which is not at hand here")
    return as_float(weight)


def require_shape(rows: int, columns: int, shape: Sequence[int]) -> None:
    """Before a product is formed, which would be as large as a stranger's file says.

    Raises:
        ValueError: (rows, columns) are not those of a weight of `shape`, flat.
    """
    if (rows, columns) != (shape[0], math.prod(shape[1:])):
        raise ValueError(f"it changes a weight of {rows} x {columns}, the model's has shape {tuple(shape)}")


def shaped(delta: Tensor, shape: Sequence[int]) -> Tensor:
    if delta.numel() != math.prod(shape) or delta.shape[0] != shape[0]:
        raise ValueError(f"it changes a weight of shape {tuple(delta.shape)}, the model's has shape {tuple(shape)}")
    return delta.reshape(tuple(shape))


def as_float(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32)


def energy_of(tensor: Tensor) -> float:
    """‖T‖², row by row: one sum over ten million squares in float32 is a thousandth too small."""
    return float(tensor.flatten(1).norm(dim=1).to(torch.float64).square().sum())


def product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """a · b, or with a Tucker core (r, r, kh, kw) the kernel Σᵢⱼ core[i, j] aᵢ bⱼ; a (r, out) and b (r, in) then."""
    if core is None:
        return as_float(a) @ as_float(b)
    return torch.einsum("ijkl,ip,jr->prkl", as_float(core), as_float(a), as_float(b))
