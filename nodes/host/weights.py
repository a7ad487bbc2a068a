"""Weights loaded under inference mode, made usable for a backward pass without copying them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Leaves inference mode, with plain frozen aliases in place of all parameters and buffers of `model`.

    ComfyUI runs nodes under `torch.inference_mode`, and autograd refuses to save the tensors created there. An alias
    shares the storage, so nothing is copied. On the way out, whatever happened, the original objects are put back.
    Tensor subclasses (quantised weights) stay as they are: their kernels dequantise into fresh tensors.
    """
    replaced: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for module in model.modules():
                for store, as_parameter in ((module._parameters, True), (module._buffers, False)):
                    for name, tensor in list(store.items()):
                        if type(tensor) in (nn.Parameter, Tensor):
                            alias = _alias(tensor)
                            store[name] = nn.Parameter(alias, requires_grad=False) if as_parameter else alias
                            replaced.append((store, name, tensor))
            yield
        finally:
            for store, name, tensor in replaced:
                store[name] = tensor


def _alias(tensor: Tensor) -> Tensor:
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
