"""What a training computes with where the host was told to sample with fast products, sums or streamed weights.

There is no graphics card here, so what a card would bring in is put into the host's own classes by hand.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from inside.models import CPU, FP8, file_of_weights, in_training, sdxl, teacher_and_student
from inside_host import of_the_pack, raised
from torch import Tensor


@contextmanager
def counted_fp8(layers: list[str]) -> Generator[None, None, None]:
    """In place of the host's fp8 product, which needs a card, one that adds to `layers` and has no backward either."""

    def product(module: Any, x: Tensor) -> Tensor:
        layers.append(type(module).__qualname__)
        with torch.no_grad():
            return F.linear(x, module.weight.to(x.dtype), None if module.bias is None else module.bias.to(x.dtype)) + 1

    with mock.patch.object(comfy.ops, "fp8_linear", product):
        yield


def own_methods(patcher: Any) -> list[str]:
    """Methods that a layer has instead of its class's."""
    methods = ("forward", "forward_comfy_cast_weights")
    return [f"{name}.{m}" for name, module in patcher.model.named_modules() for m in methods if m in module.__dict__]


def check_fp8_products_are_for_sampling_alone() -> None:
    """Teacher and student multiply as a plain model does; the fast product is there again, also after a failure."""
    state = file_of_weights(torch.float32)
    patcher = sdxl(FP8, torch.float32, state, comfy.ops.fp8_ops)
    patcher.model.diffusion_model.eval()  # one version of the host takes the fast product only then
    layers: list[str] = []
    before = own_methods(patcher)
    with counted_fp8(layers):
        taught, student, gradient = teacher_and_student(patcher)
        assert not layers
        patcher.model.diffusion_model.get_submodule("time_embed.0")(torch.ones(1, 32))
        assert len(layers) == 1
        try:
            with in_training(patcher):
                raise ValueError("a training that fails")
        except ValueError:
            pass
    assert own_methods(patcher) == before
    assert torch.equal(taught, student) and gradient.isfinite().all() and gradient.any()
    expected = teacher_and_student(sdxl(FP8, torch.float32, state, comfy.ops.manual_cast))
    assert all(map(torch.equal, (taught, student, gradient), expected))


def check_a_scaled_fp8_layer_keeps_its_scale() -> None:
    """On hosts that have such a class, with the fast product and without."""
    make = getattr(comfy.ops, "scaled_fp8_ops", None)
    if make is None:
        return
    x, layers = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(4)), list[str]()
    outputs: list[Tensor] = []
    for fast in (True, False):
        layer = make(fp8_matrix_mult=fast, scale_input=fast, override_dtype=FP8).Linear(8, 4, device=CPU)
        layer.weight.data = torch.linspace(-2, 2, 32).view(4, 8).to(FP8)
        layer.bias.data = torch.ones(4).to(FP8)
        layer.scale_weight.data.fill_(0.5)
        with counted_fp8(layers), of_the_pack("nodes.host.matmul").plain_matmul(layer):
            outputs.append(layer(x))
    assert not layers and torch.equal(*outputs)


def check_only_the_hosts_own_fast_layers_are_replaced() -> None:
    """One of another pack, and one that a node has changed, stay; a gated layer refuses what cuts the gradient."""

    class Fast(comfy.ops.disable_weight_init.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(1)

    class OfTheHost(Fast):
        __module__ = comfy.ops.__name__

    for kind, own, plain in ((OfTheHost, False, True), (Fast, False, False), (OfTheHost, True, False)):
        layer = kind(2, 2, device=CPU)
        if own:
            layer.forward = lambda x: torch.zeros(1)
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        with of_the_pack("nodes.host.matmul").plain_matmul(layer):
            assert torch.equal(layer(torch.ones(1, 2)), torch.ones(1, 2)) == plain, (kind, own)


def check_a_streamed_model_trains_in_its_own_dtypes() -> None:
    """A bf16, fp32 or fp16 file in an fp16 or fp8 model: as where the host does not stream, bit for bit."""
    if "disable_dynamic" not in inspect.signature(comfy.model_patcher.ModelPatcher.clone).parameters:
        return  # this host cannot stream

    class Streaming(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self) -> bool:
            return True

    def load(dtype: torch.dtype, compute: torch.dtype | None, state: dict[str, Tensor], **_: Any) -> Any:
        """What a loader of a host that streams gives: linear layers take the dtype of the file."""
        with mock.patch("comfy.memory_management.aimdo_enabled", True):
            return sdxl(dtype, compute, state)

    def dtypes(patcher: Any) -> set[torch.dtype]:
        return {each.dtype for each in patcher.model.diffusion_model.parameters()}

    half = torch.float16
    for file, dtype, compute in ((torch.bfloat16, half, None), (torch.float32, half, None), (half, FP8, half)):
        state = file_of_weights(file)
        loader = partial(load, dtype, compute, state)
        streaming = Streaming(loader().model, load_device=CPU, offload_device=CPU)
        streaming.cached_patcher_init = (loader, ())
        before = dtypes(streaming)
        clone = of_the_pack("nodes.host.weights").plain_clone(streaming)
        held = sum(each.numel() * each.element_size() for each in clone.model.state_dict().values())
        assert (dtypes(clone), clone.model_size(), dtypes(streaming)) == ({dtype}, held, before), (file, dtype)
        ours, theirs = teacher_and_student(streaming), teacher_and_student(sdxl(dtype, compute, state))
        assert all(map(torch.equal, ours, theirs)), (file, dtype)


def check_a_streamed_model_without_another_loader_is_told() -> None:
    """Not by a switch of the host's that will go."""
    for more in ({"cached_patcher_init": None}, {}):
        patcher = types.SimpleNamespace(is_dynamic=lambda: True, **more)
        told = raised(of_the_pack("nodes.host.weights").plain_clone, patcher)
        assert "Load Checkpoint" in told and "--" not in told, told


def check_a_training_has_its_own_precision() -> None:
    """Under somebody's autocast it computes in its own dtype; TF32 serves float32 alone; no sums in float16.

    Also where PyTorch has no such switch, and on a device without autocast.
    """
    own_precision, matmul = of_the_pack("nodes.host.precision").own_precision, torch.backends.cuda.matmul
    one = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        for size in (4, 2):
            with own_precision(CPU, size):
                assert (one @ one).dtype == torch.float32 and matmul.allow_tf32 == (size == 4)
        assert (one @ one).dtype == torch.bfloat16 and not matmul.allow_tf32
    matmul.allow_fp16_accumulation = True
    with own_precision(CPU, 2):
        assert not matmul.allow_fp16_accumulation
    assert matmul.allow_fp16_accumulation
    matmul.allow_fp16_accumulation = False
    older = types.SimpleNamespace(allow_tf32=False)
    with mock.patch.object(torch.backends.cuda, "matmul", older):
        with own_precision(torch.device("privateuseone"), 4):
            assert vars(older) == {"allow_tf32": True}
        assert vars(older) == {"allow_tf32": False}
