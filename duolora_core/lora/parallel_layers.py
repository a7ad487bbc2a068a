"""The same maths for every layer, on all the threads that PyTorch may use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Before = TypeVar("Before")
After = TypeVar("After")


def map_layers(function: Callable[[str, Before], After], layers: Mapping[str, Before]) -> dict[str, After]:
    """{name: function(name, layer)} without gradients, in the order of `layers`; raises what `function` raises first.

    The matrices of one layer are too small to be shared out: two threads on one QR decomposition of (1280, 64) are
    slower than one, and on a busy machine they mostly wait for each other. So every thread takes whole layers and
    works on them alone, which also makes the results the same on any number of threads.
    """
    workers = torch.get_num_threads()
    with _one_thread_each(), ThreadPoolExecutor(workers, initializer=torch.get_num_threads) as pool:
        return dict(zip(layers, pool.map(torch.no_grad()(function), layers, layers.values()), strict=True))


def map_in_turn(function: Callable[[str, Before], After], layers: Mapping[str, Before]) -> dict[str, After]:
    """The same one layer after another on the calling thread: where the work is a device's, and its memory scarce."""
    with torch.no_grad():
        return {name: function(name, layer) for name, layer in layers.items()}


@contextmanager
def _one_thread_each() -> Generator[None, None, None]:
    """Inside, a new thread computes alone; PyTorch's own threads as before after.

    A thread takes over the number that is set when it first asks for it. It is set once, by the thread that starts the
    others: where each sets it for itself, it changes OpenMP's and MKL's common state while the others compute.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
