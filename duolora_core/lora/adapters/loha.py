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

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs) of the flat weight that it changes."""
        rows, kernel = (self.w1_a.shape[0], 1) if self.t1 is None else (self.w1_a.shape[1], self.t1[0, 0].numel())
        return rows, self.w1_b.shape[1] * kernel

    @property
    def rank(self) -> int | None:
        """Of ΔW, at most; None where cores stand between."""
        return self.w1_b.shape[0] * self.w2_b.shape[0] if self.t1 is None and self.t2 is None else None

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        require_shape(*self.size, shape)
        one = product(self.w1_a, self.w1_b, self.t1)
        two = product(self.w2_a, self.w2_b, self.t2)
        return shaped(one.mul_(two).mul_(self.scale), shape)

    def factors(self) -> LowRank:
        """(Σᵢ aᵢbᵢᵀ) ⊙ (Σⱼ cⱼdⱼᵀ) = Σᵢⱼ (aᵢ⊙cⱼ)(bᵢ⊙dⱼ)ᵀ: exact, of rank r², where no cores stand between."""
        a, c = as_float(self.w1_a), as_float(self.w2_a)  # (out, r)
        b, d = as_float(self.w1_b), as_float(self.w2_b)  # (r, inputs)
        up = (a[:, :, None] * c[:, None, :]).flatten(1)  # (out, r²)
        down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)  # (r², inputs)
        return LowRank(up, down * self.scale)
