"""The same maths for every layer, on all the threads that PyTorch may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return dict(zip(layers, pool.map(torch.no_grad()(function), layers, layers.values()), strict=True))
    finally:
        torch.set_num_threads(threads)  # what a worker sets for itself, threads made later would start with, too
