"""The nearest LowRank of any adapter, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..low_rank import LowRank
from .loha import Loha
from .lokr import Lokr
from .parts import Adapter, require_shape
from .svd import randomised_svd


def low_rank_of(
    adapter: Adapter, shape: Sequence[int], weight: Tensor | None, max_rank: int, energy: float = 0.99
) -> tuple[LowRank, float]:
    """The nearest LowRank of an adapter, and the share of its energy ‖ΔW‖² that is lost.

    The rank is the smallest that keeps `energy` of it, at most `max_rank`. LoHa whose r² is within `max_rank` is exact.

    Raises:
        ValueError: as of `Adapter.delta`.
    """
    if isinstance(adapter, Loha):
        exact = adapter.low_rank(max_rank)
        if exact is not None:
            require_shape(exact.up.shape[0], exact.down.shape[1], shape)
            return exact, 0.0
    if isinstance(adapter, Lokr):
        require_shape(*adapter.size, shape)
        return _trimmed(adapter.low_rank(max_rank), adapter.energy(), energy)
    delta = adapter.delta(shape, weight).flatten(1)
    return _trimmed(LowRank(*randomised_svd(delta, max_rank)), float(delta.norm().double() ** 2), energy)


def _trimmed(found: LowRank, total: float, energy: float) -> tuple[LowRank, float]:
    """The first components that hold `energy` of `total`, and the share of it that is lost."""
    held = (found.up.double().norm(dim=0) * found.down.double().norm(dim=1)).square().cumsum(0)  # (rank,)
    if total == 0 or not found.rank:
        return found.select(torch.zeros(found.rank, dtype=torch.bool)), 0.0
    count = min(int((held < energy * total).sum()) + 1, found.rank)
    kept = found.select(torch.arange(found.rank) < count)
    return kept, max(0.0, 1.0 - float(held[count - 1]) / total)
