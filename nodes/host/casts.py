"""Layers that the host stores in one dtype and computes in another, without a converted copy of each being held."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...duolora_core.model.frozen_layer import frozen_layer
from .gradient_checkpointing import give_back_forward


@contextmanager
def casts_not_held(model: nn.Module) -> Generator[None, None, None]:
    """Inside, every linear layer and convolution whose weight is converted for its use is a `frozen_layer`."""
    with ExitStack() as wrapped:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and _is_plain(module):
                forward = _converting(module, module.forward)
                wrapped.callback(give_back_forward, module, module.__dict__.get("forward"))
                module.forward = forward
        yield


def _is_plain(module: Any) -> bool:
    """Whether what it multiplies with is its weight converted, and nothing else is done to that."""
    changed = getattr(module, "weight_function", ()) or getattr(module, "scale_weight", None) is not None
    return type(module.weight) is nn.Parameter and not changed


def _converting(module: nn.Linear | nn.Conv2d, forward: Callable[[Tensor], Tensor]) -> Any:
    def run(x: Tensor) -> Tensor:
        held = x.requires_grad and torch.is_grad_enabled() and module.weight.dtype != x.dtype
        return frozen_layer(module, forward, x) if held else forward(x)

    return run
