"""Layers with hooks: a layer whose kernel cuts the gradient is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from duolora_core.errors import ModelMismatchError
from duolora_core.model.hooks import hooked_layers


class NoBackward(nn.Linear):
    """A linear layer on a kernel that knows nothing of gradients."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(input)


def unchanged(module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    return output


def test_a_layer_that_cuts_the_gradient_is_refused() -> None:
    """Where a gradient is needed; a teacher may go through it."""
    layer = NoBackward(2, 2)
    with hooked_layers({"to_q": layer}, [("to_q", unchanged)]):
        x = torch.ones(1, 2, requires_grad=True)
        with pytest.raises(ModelMismatchError, match=r"Layer to_q \(NoBackward\).*no gradient.*--fast"):
            layer(x)
        layer(x.detach())
        with torch.no_grad():
            layer(x)
    assert not layer._forward_hooks  # pyright: ignore[reportPrivateUsage]


def test_a_frozen_layer_that_passes_the_gradient_on_is_not() -> None:
    layer = nn.Linear(2, 2).requires_grad_(False)
    with hooked_layers({"to_q": layer}, [("to_q", unchanged)]):
        assert layer(torch.ones(1, 2, requires_grad=True)).requires_grad
