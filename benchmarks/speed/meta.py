"""Whole training steps on the meta device, where a model of full size costs neither memory nor arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READ = torch.ops.aten._local_scalar_dense.default
_COPY = torch.ops.aten._to_copy.default


class ReadingOnes(TorchDispatchMode):
    """A meta tensor has no values: inside, one that is read or copied to the CPU is 1 everywhere.

    A training loop reads its losses and its gates to report them; nothing that it computes depends on them.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is _READ and args[0].is_meta:
            return 1 if not args[0].is_floating_point() else 1.0
        if func is _COPY and args[0].is_meta and _device(options) == "cpu":
            return torch.ones(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
        return func(*args, **options)


def _device(options: Mapping[str, Any]) -> str:
    device = options.get("device")
    return "meta" if device is None else torch.device(device).type
