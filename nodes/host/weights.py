"""Weights loaded under inference mode, made usable for a backward pass without copying them."""

# The registries of nn.Module are the only place where one tensor can be swapped for another.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def differentiable(model: nn.Module) -> Generator[None, None, None]:
    """Leaves inference mode, with plain frozen aliases in place of all parameters and buffers of `model`.

    ComfyUI runs nodes under `torch.inference_mode`, and autograd refuses to save the tensors created there. An alias
    shares the storage, so nothing is copied. On the way out, whatever happened, the original objects are put back.
    Tensor subclasses (quantised weights) stay as they are: their kernels dequantise into fresh tensors.
    """
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as originals:
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if type(parameter) is nn.Parameter:
                    alias = nn.Parameter(_alias(parameter), requires_grad=False)
                    originals.callback(module._parameters.__setitem__, name, parameter)
                    module._parameters[name] = alias
            for name, buffer in list(module._buffers.items()):
                if type(buffer) is Tensor:
                    alias = _alias(buffer)
                    originals.callback(module._buffers.__setitem__, name, buffer)
                    module._buffers[name] = alias
        yield


def _alias(tensor: Tensor) -> Tensor:
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
