"""Bytes alive during a training step, followed allocation by allocation: exact, and the same on every machine.

On the meta device this gives the peak of full SDXL without its memory. It is what a caching allocator would report
as allocated, less its rounding and the scratch space inside kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.speed.contestants import CONTESTANTS, Task
from benchmarks.speed.meta import ReadingOnes


class LiveBytes(TorchDispatchMode):
    """Counts the storages that are made on one kind of device while it is on, each until it is freed.

    Attributes:
        alive: bytes now
        peak: the most there were at once
    """

    def __init__(self, device: str):
        super().__init__()
        self.device = device
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = self._storages((args, kwargs))
        results = func(*args, **(kwargs or {}))
        for storage in self._storages(results):
            of_input = any(storage is other for other in given)  # a view, or changed in place
            if not of_input and id(storage) not in self._known:
                self._known.add(id(storage))
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
        return results

    def _storages(self, tree: Any) -> list[torch.UntypedStorage]:
        tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.device.type == self.device]
        return [tensor.untyped_storage() for tensor in tensors]

    def _freed(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.alive -= nbytes


@contextmanager
def fused_attention() -> Generator[None, None, None]:
    """Inside, attention on the meta device allocates what fused kernels do, which is no matrix of (tokens, tokens).

    Without, PyTorch takes it to pieces there, which counts the same FLOPs but not the same bytes.
    """

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]

    with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention):
        yield


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """The most bytes that were alive at once of what the function allocated."""
    with LiveBytes(device) as live:
        work()
    return live.peak


def step_peak_bytes(contestant: str, task: Task) -> int:
    """Peak of a contestant's set-up and one training step on the meta device, without the UNet's own weights."""

    def whole() -> None:
        with CONTESTANTS[contestant](task) as step:
            step()

    with ReadingOnes(), fused_attention():
        return peak_bytes(whole, "meta")
