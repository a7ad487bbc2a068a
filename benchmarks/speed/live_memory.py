"""How many bytes of tensors are alive at once while a piece of code runs: exact, repeatable, and without a GPU.

    with LiveMemory() as memory:
        loss(model(x)).backward()
    memory.peak   # bytes

Works on the meta device too, where full SDXL at 1024 px needs neither weights nor time.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts every storage that an operation makes, from then until nothing refers to it any more.

    What an operation uses and gives back inside itself (a convolution's workspace) is not seen, nor is what was there
    before.

    Attributes:
        now, peak: bytes
    """

    def __init__(self, device: str | None = None) -> None:
        """Counts what is on one kind of device, or on all."""
        super().__init__()
        self._device = device
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        held = {id(storage) for storage in self._storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in self._storages(result):
            if id(storage) not in held:  # neither a view nor changed in place
                self._add(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size

        def gone() -> None:
            self._known.discard(key)
            self.now -= size

        weakref.finalize(storage, gone)

    def _storages(self, tree: Any) -> Iterator[Any]:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor) and self._device in (None, leaf.device.type):
                yield leaf.untyped_storage()


@contextmanager
def fused_attention() -> Generator[None, None, None]:
    """Inside, attention allocates what fused kernels do, which is no matrix of (tokens, tokens), also on meta tensors.

    Without, PyTorch takes it to pieces there, which counts the same FLOPs but not the same bytes.
    """

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]

    with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention):
        yield


@contextmanager
def plain_attention(in_half: bool = False) -> Generator[None, None, None]:
    """Inside, attention takes the path of devices without a fused kernel, with a matrix of (tokens, tokens).

    Args:
        in_half: half precision stays half precision in it
    """
    cuda = torch.backends.cuda
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    try:
        cuda.allow_fp16_bf16_reduction_math_sdp(in_half)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)
