"""A frozen layer that converts its weight for each use: the same numbers, and no converted weight held until then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duolora_core.model.frozen_layer import frozen_layer

STORED = [torch.float16, torch.float8_e4m3fn]
Layer = nn.Linear | nn.Conv2d


def layers() -> list[tuple[Layer, Tensor]]:
    torch.manual_seed(0)
    return [
        (nn.Linear(96, 64), torch.randn(2, 10, 96)),
        (nn.Linear(96, 64, bias=False), torch.randn(3, 96)),
        (nn.Conv2d(16, 24, 3, padding=1), torch.randn(2, 16, 12, 8)),
        (nn.Conv2d(16, 24, 3, stride=2, padding=1), torch.randn(2, 16, 12, 8)),
        (nn.Conv2d(16, 24, 1), torch.randn(1, 16, 5, 5)),
    ]


def converting(layer: Layer) -> Callable[[Tensor], Tensor]:
    """What a host computes: the weight in the dtype of the input."""

    def forward(x: Tensor) -> Tensor:
        weight, bias = layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding)

    return forward


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("case", range(len(layers())))
def test_output_and_gradient_are_those_of_the_layer_bit_for_bit(case: int, stored: torch.dtype) -> None:
    layer, x = layers()[case]
    layer.to(stored).requires_grad_(False)
    found: list[tuple[Tensor, Tensor]] = []
    for run in (converting(layer), partial(frozen_layer, layer, converting(layer))):
        at = x.clone().requires_grad_()
        output = run(at)
        output = output + output.detach().cos() * output  # a gradient that differs from place to place
        output.square().mean().backward()
        assert at.grad is not None
        found.append((output.detach(), at.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_its_output_may_be_changed_in_place() -> None:
    """As a gated LoRA does."""
    layer, x = layers()[0]
    layer.half().requires_grad_(False)
    at = x.clone().requires_grad_()
    output = frozen_layer(layer, converting(layer), at)
    output += 1
    output.sum().backward()
    assert at.grad is not None and torch.equal(at.grad, torch.ones(2, 10, 64) @ layer.weight.float())


@pytest.mark.parametrize("case", range(len(layers())))
def test_nothing_of_the_weights_size_is_saved(case: int) -> None:
    layer, x = layers()[case]
    layer.half().requires_grad_(False)
    saved: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        converting(layer)(x.clone().requires_grad_())
        assert saved  # autograd's own way does
        saved.clear()
        frozen_layer(layer, converting(layer), x.clone().requires_grad_())
    assert not saved
