"""Gradient checkpointing of ComfyUI's UNet: activations of a block are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(model: nn.Module, enabled: bool = True) -> Generator[None, None, None]:
    """Inside, every transformer and residual block keeps only its inputs. Results are exactly those without it."""
    wrapped: list[tuple[nn.Module, Any]] = []
    try:
        for module in model.modules() if enabled else ():
            if isinstance(module, BasicTransformerBlock | ResBlock):
                wrapped.append((module, module.__dict__.get("forward")))
                module.forward = _checkpointing(module.forward)
        yield
    finally:
        for module, own_forward in wrapped:
            del module.__dict__["forward"]
            if own_forward is not None:
                module.forward = own_forward


def _checkpointing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # The UNet goes on changing its options dictionary after this call; the second run must see today's content.
        args = tuple(dict(value) if isinstance(value, dict) else value for value in args)
        kwargs = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
