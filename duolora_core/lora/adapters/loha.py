"""LoHa: ΔW = α/r · (A₁ B₁) ⊙ (A₂ B₂) (LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..low_rank import LowRank
from .parts import as_float, product, require_shape, shaped


@dataclass(frozen=True)
class Loha:
    """Attributes: `w1_a`, `w2_a` (out, r); `w1_b`, `w2_b` (r, inputs); with cores `t1`, `t2` (r, r, kh, kw) the `a`
    are (r, out) and the `b` (r, in)."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None
    t2: Tensor | None
    alpha: float | None
    kind = "LoHa"
    needs_weight = False

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.w1_b.shape[0]

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        rows, kernel = (self.w1_a.shape[0], 1) if self.t1 is None else (self.w1_a.shape[1], self.t1[0, 0].numel())
        require_shape(rows, self.w1_b.shape[1] * kernel, shape)
        one = product(self.w1_a, self.w1_b, self.t1)
        two = product(self.w2_a, self.w2_b, self.t2)
        return shaped(one.mul_(two).mul_(self.scale), shape)

    def low_rank(self, rank: int) -> LowRank | None:
        """(Σᵢ aᵢbᵢᵀ) ⊙ (Σⱼ cⱼdⱼᵀ) = Σᵢⱼ (aᵢ⊙cⱼ)(bᵢ⊙dⱼ)ᵀ: exact, of rank r².

        None where that is above `rank`, or cores stand between.
        """
        found = self.w1_b.shape[0] * self.w2_b.shape[0]
        if self.t1 is not None or self.t2 is not None or found > rank:
            return None
        a, c = as_float(self.w1_a), as_float(self.w2_a)  # (out, r)
        b, d = as_float(self.w1_b), as_float(self.w2_b)  # (r, inputs)
        up = (a[:, :, None] * c[:, None, :]).flatten(1)  # (out, r²)
        down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)  # (r², inputs)
        return LowRank(up, down * self.scale)
