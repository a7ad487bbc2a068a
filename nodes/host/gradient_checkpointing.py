"""Gradient checkpointing of ComfyUI's UNet: activations of a block are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...duolora_core.model.memory.estimate import MemoryPlan


@dataclass
class Switch:
    """The plan whose blocks keep only their inputs; may be changed between two steps."""

    plan: MemoryPlan


@contextmanager
def checkpointable(network: nn.Module, levels: Mapping[str, int]) -> Generator[Switch, None, None]:
    """Inside, every transformer and residual block follows the switch. Results are the same either way.

    Args:
        levels: {module name: level} of the blocks, see `block_levels`
    """
    switch, modules = Switch(MemoryPlan(1, "none")), dict(network.named_modules())
    with ExitStack() as wrapped:
        for name, level in levels.items():
            module = modules[name]
            forward = _checkpointing(module.forward, level, switch)
            wrapped.callback(give_back_forward, module, module.__dict__.get("forward"))
            module.forward = forward
        yield switch


def give_back_forward(module: nn.Module, own_forward: Callable[..., Any] | None) -> None:
    """Ends the wrapping; a forward of its own is one that another node has set on this module."""
    del module.forward
    if own_forward is not None:
        module.forward = own_forward


def _checkpointing(forward: Callable[..., Any], level: int, switch: Switch) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not (switch.plan.recomputes(level) and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        # The UNet goes on changing its options dictionary after this call; the second run must see today's content.
        args = tuple(dict(value) if isinstance(value, dict) else value for value in args)
        kwargs = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
