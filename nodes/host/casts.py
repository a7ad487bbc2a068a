"""Layers that the host stores in one dtype and computes in another, without a converted copy of each until the backward."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...duolora_core.frozen_layer import frozen_layer


@contextmanager
def casts_not_held(model: nn.Module) -> Generator[None, None, None]:
    """Inside, every linear layer and convolution whose weight is converted for its use is a `frozen_layer`."""
    with ExitStack() as wrapped:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and _is_plain(module):
                before = module.__dict__.get("forward")
                wrapped.callback(_give_back, module, before)
                module.forward = _converting(module, module.forward)
        yield


def _is_plain(module: Any) -> bool:
    """Whether what it multiplies with is its weight converted, and nothing else is done to that."""
    changes = getattr(module, "weight_function", ()), getattr(module, "scale_weight", None)
    return type(module.weight) is nn.Parameter and not changes[0] and changes[1] is None


def _converting(module: nn.Linear | nn.Conv2d, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        held = x.requires_grad and torch.is_grad_enabled() and module.weight.dtype != x.dtype
        return frozen_layer(module, forward, x) if held else forward(x)

    return run


def _give_back(module: nn.Module, own_forward: Callable[..., Any] | None) -> None:
    """Ends the wrapping; a forward of its own is one that another node has set on this module."""
    del module.forward
    if own_forward is not None:
        module.forward = own_forward
