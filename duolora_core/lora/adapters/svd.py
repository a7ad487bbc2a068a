"""Singular value decompositions with √Σ on both sides, whole or of the strongest components only."""

from __future__ import annotations

import torch
from torch import Tensor


def randomised_svd(matrix: Tensor, rank: int, oversample: int = 10, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """(U√Σ, √ΣVᵀ) of the strongest components, (m, k) and (k, n), k = min(rank, m, n) (arXiv 0909.4061, Alg. 4.4, 5.1).

    Equal matrices give equal factors: the test matrix comes from a fixed seed.
    """
    short = min(matrix.shape)
    if rank + oversample >= short:
        up, down = split(matrix)
        return up[:, :rank], down[:rank]
    generator = torch.Generator().manual_seed(0)
    test = torch.randn(matrix.shape[1], rank + oversample, generator=generator).to(matrix)
    basis, _ = torch.linalg.qr(matrix @ test)  # (m, rank + oversample)
    for _ in range(iterations):
        other, _ = torch.linalg.qr(matrix.T @ basis)
        basis, _ = torch.linalg.qr(matrix @ other)
    up, down = split(basis.T @ matrix)
    return (basis @ up)[:, :rank], down[:rank]


def split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """U√Σ (m, k) and √ΣVᵀ (k, n), k = min(m, n).

    Elsewhere than on the CPU only the QR decomposition is the device's: graphics cards decompose small matrices slowly,
    and a strange LAPACK's singular vectors would differ more from those of the CPU.
    """
    if matrix.device.type != "cpu":
        is_tall = matrix.shape[0] >= matrix.shape[1]
        q, r = torch.linalg.qr(matrix if is_tall else matrix.T)
        up, down = (each.to(matrix.device) for each in split((r if is_tall else r.T).cpu()))
        return (q @ up, down) if is_tall else (up, down @ q.T)
    u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = sigma.sqrt()
    return u * root, root[:, None] * vh
