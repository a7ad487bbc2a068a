"""What linear layers multiply with where the host was told to take fp8 or another fast product: a part of
`arithmetic_inside.py`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from arithmetic_models import (  # beside the script that runs
    CPU,
    FP8,
    file_of_weights,
    in_training,
    of_the_pack,
    sdxl,
    teacher_and_student,
)
from torch import Tensor


@contextmanager
def counted_fp8(layers: list[str]) -> Generator[None, None, None]:
    """In place of the host's fp8 product, which needs a card, one that adds to `layers` and has no backward either."""
    import comfy.ops

    def product(module: Any, x: Tensor) -> Tensor:
        layers.append(type(module).__qualname__)
        with torch.no_grad():
            return F.linear(x, module.weight.to(x.dtype), None if module.bias is None else module.bias.to(x.dtype)) + 1

    original, comfy.ops.fp8_linear = comfy.ops.fp8_linear, product
    try:
        yield
    finally:
        comfy.ops.fp8_linear = original


def fast_matmul() -> dict[str, Any]:
    """A model whose linear layers multiply in fp8: in a training, after it, and after a training that failed."""
    import comfy.ops

    state = file_of_weights(torch.float32)
    patcher = sdxl(FP8, torch.float32, state, comfy.ops.fp8_ops)
    plain = sdxl(FP8, torch.float32, state, comfy.ops.manual_cast)
    patcher.model.diffusion_model.eval()  # one version of the host takes the fast product only then
    layers: list[str] = []
    before = own_methods(patcher)
    with counted_fp8(layers):
        taught, student, gradient = teacher_and_student(patcher)
        in_a_training = len(layers)
        patcher.model.diffusion_model.get_submodule("time_embed.0")(torch.ones(1, 32))
        try:
            with in_training(patcher):
                raise ValueError("a training that fails")
        except ValueError:
            pass
    expected = teacher_and_student(plain)
    return {
        "in_training": in_a_training,
        "after": len(layers) - in_a_training,
        "restored": own_methods(patcher) == before,
        "teacher_is_student": torch.equal(taught, student),
        "gradient": bool(gradient.isfinite().all() and gradient.any()),
        "as_plain": all(map(torch.equal, (taught, student, gradient), expected)),
    }


def own_methods(patcher: Any) -> list[str]:
    """Methods that a layer has instead of its class's."""
    return [
        f"{name}.{method}"
        for name, module in patcher.model.named_modules()
        for method in ("forward", "forward_comfy_cast_weights")
        if method in module.__dict__
    ]


def scaled_fp8() -> dict[str, Any]:
    """A scaled fp8 layer of a host that has them, with the fast product and without; else nothing."""
    import comfy.ops

    make: Callable[..., Any] | None = getattr(comfy.ops, "scaled_fp8_ops", None)
    if make is None:
        return {}
    x, layers = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(4)), []
    outputs: list[Tensor] = []
    for fast in (True, False):
        layer = make(fp8_matrix_mult=fast, scale_input=fast, override_dtype=FP8).Linear(8, 4, device=CPU)
        layer.weight.data = torch.linspace(-2, 2, 32).view(4, 8).to(FP8)
        layer.bias.data = torch.ones(4).to(FP8)
        layer.scale_weight.data.fill_(0.5)
        with counted_fp8(layers), of_the_pack("nodes.host.matmul").plain_matmul(layer):
            outputs.append(layer(x))
    return {"fast": len(layers), "difference": float((outputs[0] - outputs[1]).detach().abs().max())}


def fast_forward() -> list[bool]:
    """Linear layers whose class computes in `forward` itself: of the host's, of another pack, changed by another node.

    For each, whether it multiplies as a plain layer inside.
    """
    import comfy.ops

    class Fast(comfy.ops.disable_weight_init.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(1)

    class OfTheHost(Fast):
        __module__ = comfy.ops.__name__

    found: list[bool] = []
    for kind, own in ((OfTheHost, False), (Fast, False), (OfTheHost, True)):
        layer = kind(2, 2, device=CPU)
        if own:
            layer.forward = lambda x: torch.zeros(1)
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        with of_the_pack("nodes.host.matmul").plain_matmul(layer):
            found.append(torch.equal(layer(torch.ones(1, 2)), torch.ones(1, 2)))
    return found
