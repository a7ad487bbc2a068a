"""LoKr: ΔW = α/r · W₁ ⊗ W₂, either factor itself a product (LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..low_rank import LowRank
from .parts import as_float, energy_of, product, require_shape, shaped
from .svd import split


@dataclass(frozen=True)
class Lokr:
    """Attributes: `w1` whole, or `w1_a` `w1_b`; `w2` whole, or `w2_a` `w2_b`, the latter with a core `t2` where the
    layer is a convolution: (r, r, kh, kw) between `w2_a` (r, out) and `w2_b` (r, in)."""

    w1: Tensor | None
    w1_a: Tensor | None
    w1_b: Tensor | None
    w2: Tensor | None
    w2_a: Tensor | None
    w2_b: Tensor | None
    t2: Tensor | None
    alpha: float | None
    kind = "LoKr"
    needs_weight = False

    @property
    def scale(self) -> float:
        """alpha / rank; 1 where both factors are whole, since there is no rank then."""
        factor = self.w2_b if self.w2 is None else self.w1_b if self.w1 is None else None
        return 1.0 if self.alpha is None or factor is None else self.alpha / factor.shape[0]

    def factors(self) -> tuple[Tensor, Tensor]:
        """W₁ (p, m) and W₂ (q, n) or (q, n, kh, kw), in float32."""
        return _whole(self.w1, self.w1_a, self.w1_b, None), _whole(self.w2, self.w2_a, self.w2_b, self.t2)

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs) of the flat weight that it changes."""
        (p, m), (q, n) = _size(self.w1, self.w1_a, self.w1_b, None), _size(self.w2, self.w2_a, self.w2_b, self.t2)
        return p * q, m * n

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        require_shape(*self.size, shape)
        one, two = self.factors()
        return shaped(torch.kron(one, two.flatten(1)).mul_(self.scale), shape)

    def low_rank(self, rank: int) -> LowRank:
        """The nearest LowRank of at most `rank`, without forming ΔW: singular values of W₁ ⊗ W₂ are the products."""
        one, two = (LowRank(*split(w.flatten(1))) for w in self.factors())  # √Σ on both sides
        strength = one.up.norm(dim=0)[:, None] ** 2 * two.up.norm(dim=0)[None] ** 2  # (r₁, r₂) singular values
        count = min(rank, int((strength > 0).sum()))
        best = strength.flatten().topk(count).indices
        i, j = best // two.rank, best % two.rank
        up = (one.up[:, None, i] * two.up[None, :, j]).flatten(0, 1)  # (p q, count)
        down = (one.down[i][:, :, None] * two.down[j][:, None, :]).flatten(1)  # (count, m n)
        return LowRank(up, down * self.scale)

    def energy(self) -> float:
        """‖ΔW‖², the product of the factors'."""
        one, two = self.factors()
        return self.scale**2 * energy_of(one) * energy_of(two)


def _size(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> tuple[int, int]:
    """Of a factor, flat, before it is multiplied out."""
    if whole is not None:
        return whole.shape[0], whole[0].numel()
    if a is None or b is None:
        raise ValueError("a factor is neither whole nor a pair of factors")
    rows, kernel = (a.shape[0], 1) if core is None else (a.shape[1], core[0, 0].numel())
    return rows, b.shape[1] * kernel


def _whole(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> Tensor:
    if whole is not None:
        return as_float(whole)
    if a is None or b is None:
        raise ValueError("a factor is neither whole nor a pair of factors")
    return product(a, b, core)
