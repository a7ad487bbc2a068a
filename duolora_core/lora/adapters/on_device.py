"""The nearest LowRank of an adapter, found on a graphics card or on the CPU; what comes out lies on the CPU."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...files.sanitize import sanitize
from ...model.memory.out_of_memory import is_out_of_memory
from ..low_rank import LowRank
from .nearest import low_rank_of
from .parts import Adapter

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Nearest:
    """Attributes: `lost`, the share of ‖ΔW‖² that is left out; `by_cpu`: why the CPU found it instead of the device."""

    low_rank: LowRank
    lost: float
    by_cpu: str = ""


def nearest_on(
    device: torch.device, adapter: Adapter, shape: Sequence[int], weight: Tensor | None, max_rank: int
) -> Nearest:
    """`low_rank_of` on a device, or on the CPU where the device has no memory for the layer, or else fails.

    The device holds a few matrices of the layer's size at once, and none afterwards. What the CPU cannot do either is
    the adapter's fault.

    Raises:
        ValueError, RuntimeError: as of `low_rank_of`.
    """
    if device.type == "cpu":
        return _found(adapter, shape, weight, max_rank)
    try:
        with _whole_float32():
            there = None if weight is None else weight.to(device)
            return _found(moved(adapter, device), shape, there, max_rank)
    except RuntimeError as error:
        why = "out of memory" if is_out_of_memory(error) else sanitize(str(error), 120)
    # Out of the handler, where the error would hold on to the device's memory.
    return replace(_found(moved(adapter, CPU), shape, weight, max_rank), by_cpu=why)


def moved(adapter: Adapter, device: torch.device) -> Adapter:
    """The same adapter with all its tensors on a device."""
    return _moved(adapter, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _moved(getattr(value, each.name), device) for each in fields(value)})
    return value


def _found(adapter: Adapter, shape: Sequence[int], weight: Tensor | None, max_rank: int) -> Nearest:
    low_rank, lost = low_rank_of(adapter, shape, weight, max_rank)
    return Nearest(LowRank(low_rank.up.to(CPU), low_rank.down.to(CPU)), lost)


@contextmanager
def _whole_float32() -> Generator[None, None, None]:
    """No TF32 inside, which would round every product to fp16's precision."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = before
