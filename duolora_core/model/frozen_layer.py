"""A frozen layer whose weight is stored in another dtype than it computes in: converted for each use, held for none.

    y = x Wᵀ + b,   ∂L/∂x = ∂L/∂y W

Autograd keeps what the layer multiplied with, the converted W, until the backward: for all layers of SDXL together
10 GB in float32 beside a model of 5 GB in fp16, or 5 GB in fp16 beside one in fp8. The stored weight stays where it is
anyway, so it is converted once more when its turn comes. Results are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


def frozen_layer(module: nn.Linear | nn.Conv2d, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """forward(x), with a gradient for x alone.

    Args:
        forward: what the layer computes, with its `weight` converted to the dtype of x as it is
    """
    return _FrozenLayer.apply(x, module, forward)


class _FrozenLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Linear | nn.Conv2d, forward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.module, ctx.weight, ctx.shape = module, module.weight, x.shape
        output = forward(x)
        return output if output._base is None else alias_of(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        module, (gradient,) = ctx.module, gradients
        weight = ctx.weight.to(gradient.dtype)
        if isinstance(module, nn.Linear):
            return gradient @ weight, None, None
        geometry = module.stride, module.padding, module.dilation, module.groups
        return conv2d_input(ctx.shape, weight, gradient, *geometry), None, None


def alias_of(tensor: Tensor) -> Tensor:
    """The same numbers in the same memory, as a tensor that autograd takes for no view and no inference tensor.

    Autograd lets nobody change a view that a function of our own gives out.
    """
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
