"""What an optimiser was given to go by."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook


@contextmanager
def gradients() -> Generator[list[Tensor], None, None]:
    """All gradients that an optimiser is about to use, in one row for each step, through PyTorch's own hook."""
    seen: list[Tensor] = []

    def record(optimiser: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        seen.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))

    handle = register_optimizer_step_pre_hook(record)
    try:
        yield seen
    finally:
        handle.remove()
