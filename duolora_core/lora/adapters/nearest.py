"""The nearest LowRank of any adapter, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..low_rank import LowRank
from .loha import Loha
from .lokr import Lokr
from .parts import Adapter, energy_of, require_shape
from .svd import randomised_svd


def low_rank_of(
    adapter: Adapter, shape: Sequence[int], weight: Tensor | None, max_rank: int, energy: float = 0.99
) -> tuple[LowRank, float]:
    """The nearest LowRank of an adapter, and the share of its energy ‖ΔW‖² that is lost.

    The rank is the smallest that keeps `energy` of it, at most `max_rank`. LoHa whose r² is within `max_rank` is exact,
    and the best there is where r² is within the layer's own rank; so is LoKr. Everything else is decomposed as it is.

    Raises:
        ValueError: as of `Adapter.delta`.
    """
    if isinstance(adapter, Loha):
        require_shape(*adapter.size, shape)
        if adapter.rank is not None and adapter.rank <= max_rank:
            return adapter.factors(), 0.0
        if adapter.rank is not None and adapter.rank <= min(adapter.size):
            return _trimmed(*adapter.factors().strongest(max_rank), energy)
    if isinstance(adapter, Lokr):
        require_shape(*adapter.size, shape)
        return _trimmed(adapter.low_rank(max_rank), adapter.energy(), energy)
    delta = adapter.delta(shape, weight).flatten(1)
    return _trimmed(LowRank(*randomised_svd(delta, max_rank)), energy_of(delta), energy)


def _trimmed(found: LowRank, total: float, energy: float) -> tuple[LowRank, float]:
    """The first components that hold `energy` of `total`, and the share of it that is lost."""
    held = (found.up.double().norm(dim=0) * found.down.double().norm(dim=1)).square().cumsum(0)  # (rank,)
    nothing = total == 0 or not found.rank
    count = 0 if nothing else min(int((held < energy * total).sum()) + 1, found.rank)
    kept = LowRank(found.up[:, :count], found.down[:count])
    return kept, 0.0 if nothing else max(0.0, 1.0 - float(held[count - 1]) / total)
