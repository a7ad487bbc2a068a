"""Which tensors lie on the pretended card: a mark on the storage, so that every view of it has it too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

CARD = torch.device("cuda", 0)


def on_card(tensor: Tensor) -> bool:
    """Whether a tensor is said to lie on the card. One without a storage, as of the meta device, does not."""
    storage = _storage(tensor)
    return storage is not None and getattr(storage, "on_card", False)


def place(tensor: Tensor, card: bool = True) -> Tensor:
    """Says of a tensor, and of all that share its storage, where it lies; returns it."""
    storage = _storage(tensor)
    if storage is not None and getattr(storage, "on_card", False) != card:
        storage.on_card = card
    return tensor


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, which stand alone or in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def means_card(device: Any) -> bool:
    """Whether what was given as a device names the card; an index does."""
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _storage(tensor: Tensor) -> Any | None:
    try:
        return torch._C._TensorBase.untyped_storage(tensor)  # pyright: ignore[reportPrivateUsage]
    except (NotImplementedError, RuntimeError):
        return None


class PretendedGenerator(torch.Generator):
    """A generator that knows for which device it was made; its numbers are those of a CPU generator."""

    card: bool

    def __new__(cls, device: Any = "cpu") -> PretendedGenerator:
        made = super().__new__(cls)
        made.card = means_card(device)
        return made
