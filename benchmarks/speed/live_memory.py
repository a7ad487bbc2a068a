"""How many bytes of tensors are alive at once while a piece of code runs: exact, repeatable, and without a GPU.

    with LiveMemory() as memory:
        loss(model(x)).backward()
    memory.peak   # bytes

Works on the meta device too, where full SDXL at 1024 px needs neither weights nor time.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts every storage that an operation makes, from then until nothing refers to it any more.

    What an operation uses and gives back inside itself (a convolution's workspace) is not seen, nor is what was there
    before.

    Attributes:
        now, peak: bytes
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        held = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if id(storage) not in held:
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


def _storages(tree: Any) -> Iterator[Any]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
