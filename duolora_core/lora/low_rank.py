"""A low-rank weight change ΔW = up · down, and the maths on it that never forms ΔW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """ΔW = up · down with every scale (alpha / rank, strength) already folded in.

    A convolution is held flat: its kernel positions are part of `inputs`, so that all the maths is that of matrices.

    Attributes:
        up: (outputs, rank)
        down: (rank, inputs), where inputs = in_channels · kernel_height · kernel_width for a convolution
    """

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    def delta(self) -> Tensor:
        """The dense change, (outputs, inputs). For tests and small layers; nothing in training calls it."""
        return self.up @ self.down

    def scaled(self, factor: float) -> LowRank:
        """factor · ΔW. Only one of the two matrices is multiplied, so the factor counts once."""
        return LowRank(self.up, self.down * factor)

    def balanced(self) -> LowRank:
        """The same ΔW, exactly, with the largest entries of both factors within a factor of 4 of each other.

        A power of two moves from one factor to the other, which rounds nothing. Where ΔW itself is within half
        precision's range, both factors then are, however unequal alpha or a strength has made them.
        """
        largest = torch.stack([self.up.abs().amax(), self.down.abs().amax()]) if self.rank else torch.zeros(2)
        if not bool((largest > 0).all() and largest.isfinite().all()):
            return self
        exponent = int((largest[0].log2() - largest[1].log2()).div(2).round())
        if exponent == 0:
            return self
        return LowRank(self.up * 2.0**-exponent, self.down * 2.0**exponent)

    def gated(self, gate: Tensor) -> LowRank:
        """up · diag(gate) · down for a gate of shape (rank,) (ZipRank, Definition 2 of arXiv 2504.13206)."""
        return LowRank(self.up, gate.to(self.down)[:, None] * self.down)

    def select(self, keep: Tensor) -> LowRank:
        """The components whose entry in the boolean mask `keep`, (rank,), is true."""
        return LowRank(self.up[:, keep], self.down[keep])

    def norm(self) -> float:
        """Frobenius norm of ΔW, from two (rank, rank) Gram matrices; in float64, since they square the values.

        Where ΔW itself is smaller than they are, from that: so a file's rank never costs more than its own size.
        """
        up, down = self.up.to(torch.float64), self.down.to(torch.float64)
        if self.rank**2 > up.shape[0] * down.shape[1]:
            return float((up @ down).norm())
        gram_up = up.T @ up  # (rank, rank)
        gram_down = down @ down.T  # (rank, rank)
        return float((gram_up * gram_down).sum().clamp(min=0).sqrt())

    def svd_basis(self) -> LowRank:
        """The same ΔW as (U√Σ)(√ΣVᵀ), strongest component first.

        A raw LoRA's basis is arbitrary, since (up·G)(G⁻¹·down) is the same ΔW; in this one a component has a meaning
        and gating it obeys Eckart-Young (Theorem 1 of arXiv 2504.13206). Two thin QR decompositions and one
        (rank, rank) SVD; the rank becomes min(rank, outputs, inputs).
        """
        q_up, r_up = torch.linalg.qr(self.up)  # (outputs, k) (k, rank)
        q_down, r_down = torch.linalg.qr(self.down.T)  # (inputs, l) (l, rank)
        u, sigma, vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)  # (k, m) (m,) (m, l)
        root = sigma.sqrt()
        return LowRank(q_up @ (u * root), (root[:, None] * vh) @ q_down.T)

    def strongest(self, max_rank: int) -> tuple[LowRank, float]:
        """The nearest LowRank of at most `max_rank` in the SVD basis, and ‖ΔW‖².

        As `svd_basis`, but where most of the rank is left out a third of the work: the orthogonal factors, (outputs, k)
        and (inputs, l), stay products of Householder reflections, which only what is kept goes through.
        """
        up, down = _Reflected.of(self.up), _Reflected.of(self.down.T)
        u, sigma, vh = torch.linalg.svd(up.r @ down.r.T, full_matrices=False)  # (k, m) (m,) (m, l)
        root = sigma[:max_rank].sqrt()
        kept = LowRank(up.q_times(u[:, :max_rank] * root), down.q_times((root[:, None] * vh[:max_rank]).T).T)
        return kept, float(sigma.double().square().sum())

    def truncated(self, max_rank: int) -> tuple[LowRank, LowRank]:
        """The nearest LowRank of at most `max_rank`, and the rest that it leaves out: ΔW = nearest + rest."""
        if self.rank <= max_rank:
            return self, LowRank(self.up[:, :0], self.down[:0])
        basis = self.svd_basis()
        strongest = torch.arange(basis.rank) < max_rank
        return basis.select(strongest), basis.select(~strongest)


@dataclass(frozen=True)
class _Reflected:
    """A QR decomposition with Q as LAPACK makes it, a product of reflections.

    Attributes:
        r: (k, columns) upper triangle, k = min(rows, columns)
    """

    r: Tensor
    reflections: Tensor
    factors: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> _Reflected:
        packed, factors = torch.geqrf(matrix)
        count = min(matrix.shape)
        return cls(packed[:count].triu(), packed[:, :count], factors)

    def q_times(self, matrix: Tensor) -> Tensor:
        """Q · matrix for a matrix of (k, n)."""
        rows = self.reflections.shape[0] - matrix.shape[0]
        return torch.ormqr(self.reflections, self.factors, torch.nn.functional.pad(matrix, (0, 0, 0, rows)))


def concat(terms: Sequence[LowRank]) -> LowRank:
    """The sum of several ΔW as one LowRank: up = [up_1 up_2 …], down = [down_1; down_2; …]. Exact."""
    return LowRank(torch.cat([t.up for t in terms], dim=1), torch.cat([t.down for t in terms], dim=0))
