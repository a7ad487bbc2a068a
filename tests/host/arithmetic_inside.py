"""Runs inside a host's python: what a training computes with, whatever the host was told to sample with, as JSON.

python arithmetic_inside.py --host PATH --pack PATH

There is no graphics card here, so what a card would bring in (attention on cuDNN, fp8 products, weights streamed from
disk) is put into the host's own classes by hand.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script
import torch
import torch.nn.functional as F
from torch import Tensor

UNET_CONFIG: dict[str, Any] = json.loads((Path(__file__).parent / "fixtures_pack" / "unet.json").read_bytes())
UNET_CONFIG.update({"model_channels": 32, "num_head_channels": 32})
CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    inside_host.load_pack(wanted.pack)
    found = {
        "attention": attention(),
        "cudnn": cudnn(),
        "streamed": streamed(),
        "no_other_loader": no_other_loader(),
        "fast_matmul": fast_matmul(),
        "scaled_fp8": scaled_fp8(),
        "fast_forward": fast_forward(),
        "precision": precision(),
        "pictures": pictures(),
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def of_the_pack(module: str) -> Any:
    return importlib.import_module(f"duolora_pack.{module}")


def sdxl(dtype: torch.dtype, compute: torch.dtype | None, state: dict[str, Tensor], operations: Any = None) -> Any:
    """A narrow SDXL of the host's own class, held in `dtype`, in the patcher of a loader that does not stream."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SDXL(UNET_CONFIG)
    config.unet_config["num_head_channels"] = UNET_CONFIG["num_head_channels"]  # the class sets SDXL's own
    config.set_inference_dtype(dtype, compute)
    config.custom_operations = operations
    model = config.get_model({}, device=CPU)
    if state:
        model.load_model_weights(dict(state), "")
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def file_of_weights(dtype: torch.dtype) -> dict[str, Tensor]:
    """A checkpoint's UNet with small random weights."""
    patcher = sdxl(torch.float32, None, {})
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, weight in patcher.model.diffusion_model.state_dict().items():
        deviation = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        state[name] = torch.randn(weight.shape, generator=generator).mul(deviation).to(dtype)
    return state


@contextmanager
def in_training(patcher: Any) -> Generator[tuple[Any, list[Any]], None, None]:
    """The pack's denoiser of a MODEL, checkpointed, and one condition."""
    denoiser, needs = of_the_pack("nodes.host.denoiser"), of_the_pack("duolora_core.model.memory.estimate")
    generator = torch.Generator().manual_seed(1)
    pooled = torch.randn(1, 1280, generator=generator)
    conditioning = [[torch.randn(1, 77, 2048, generator=generator), {"pooled_output": pooled}]]
    condition = of_the_pack("nodes.host.prompts").condition(patcher, conditioning, latent()[0])
    work = needs.Workload(denoiser.unet_layout(patcher.model), {}, 0, (8, 8), students=1, teachers=1)
    limits = denoiser.Limits(micro_batch=1, checkpointing=True, compute="as loaded")
    with denoiser.training_denoiser(patcher, work, limits) as (denoise, _):
        yield denoise, [condition]


def latent() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def teacher_and_student(patcher: Any) -> tuple[Tensor, Tensor, Tensor]:
    """x0 without gradient, x0 with gradient, and the gradient of its mean square."""
    with in_training(patcher) as (denoise, conditions):
        sigma = torch.ones(1)
        with torch.no_grad():
            taught = denoise(latent(), sigma, conditions)
        x = latent().requires_grad_()
        student = denoise(x, sigma, conditions)
        (gradient,) = torch.autograd.grad(student.square().mean(), [x])
    return taught, student.detach(), gradient


def attention() -> dict[str, float]:
    """{case: largest difference between the pack's attention and the host's on PyTorch}."""
    from comfy.ldm.modules.attention import attention_pytorch

    ours = of_the_pack("nodes.host.attention").differentiable_attention
    batch, heads, tokens, keys, width = 2, 4, 12, 7, 8
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    flat = [random(batch, each, heads * width) for each in (tokens, keys, keys)]
    split = [random(batch, heads, each, width) for each in (tokens, keys, keys)]
    shapes = {"none": None, "2-D": (tokens, keys), "3-D": (batch, tokens, keys), "4-D": (batch, heads, tokens, keys)}
    masks = {name: None if shape is None else random(*shape) for name, shape in shapes.items()}
    masks["boolean"] = random(tokens, keys) > -1
    found: dict[str, float] = {}
    for name, mask in masks.items():
        for skip in (False, True):
            for skip_output in (False, True):
                given = (*(split if skip else flat), heads)
                options = {"mask": mask, "skip_reshape": skip, "skip_output_reshape": skip_output}
                expected = attention_pytorch(*given, **options)
                difference = ours(attention_pytorch, *given, transformer_options={}, **options) - expected
                found[f"{name} {skip} {skip_output}"] = float(difference.abs().max())
    return found


def cudnn() -> dict[str, int]:
    """How often attention ran in a training and its backward, and how often cuDNN was allowed to compute it."""
    import comfy.ops
    from torch.nn.attention import SDPBackend, sdpa_kernel

    seen: list[bool] = []
    of_torch, of_host = F.scaled_dot_product_attention, comfy.ops.scaled_dot_product_attention

    def spied(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return of_torch(*args, **kwargs)

    def cudnn_first(*args: Any, **kwargs: Any) -> Tensor:  # what the host does where there is a card
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH], set_priority=True):
            return F.scaled_dot_product_attention(*args, **kwargs)

    F.scaled_dot_product_attention, comfy.ops.scaled_dot_product_attention = spied, cudnn_first
    try:
        teacher_and_student(sdxl(torch.float32, None, file_of_weights(torch.float32)))
    finally:
        F.scaled_dot_product_attention, comfy.ops.scaled_dot_product_attention = of_torch, of_host
    return {"calls": len(seen), "allowed": sum(seen), "allowed_after": int(torch.backends.cuda.cudnn_sdp_enabled())}


def streamed() -> dict[str, Any]:
    """{file's dtype in a model's dtype: what a training finds} where the host can stream weights; else nothing."""
    import comfy.model_patcher

    if "disable_dynamic" not in inspect.signature(comfy.model_patcher.ModelPatcher.clone).parameters:
        return {}

    class Streaming(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self) -> bool:
            return True

    found: dict[str, Any] = {}
    cases: dict[str, tuple[torch.dtype, torch.dtype, torch.dtype | None]] = {
        "bf16 in fp16": (torch.bfloat16, torch.float16, None),
        "fp32 in fp16": (torch.float32, torch.float16, None),
        "fp16 in fp8": (torch.float16, FP8, torch.float16),
    }
    for name, (file, dtype, compute) in cases.items():
        state = file_of_weights(file)
        expected = sdxl(dtype, compute, state)
        load = partial(streaming_load, dtype, compute, state)
        streaming = Streaming(load().model, load_device=CPU, offload_device=CPU)
        streaming.cached_patcher_init = (load, ())
        found[name] = as_trained(streaming, expected)
    return found


def streaming_load(dtype: torch.dtype, compute: torch.dtype | None, state: dict[str, Tensor], **_: Any) -> Any:
    """What a loader of a host that streams gives: linear layers take the dtype of the file."""
    import comfy.memory_management

    comfy.memory_management.aimdo_enabled = True
    try:
        return sdxl(dtype, compute, state)
    finally:
        comfy.memory_management.aimdo_enabled = False


def as_trained(streaming: Any, expected: Any) -> dict[str, Any]:
    """Dtypes and bytes of the clone that is trained, and how far it computes from the model that it should be."""
    before = dtypes(streaming)
    clone = of_the_pack("nodes.host.weights").plain_clone(streaming)
    counted = sum(each.numel() * each.element_size() for each in clone.model.state_dict().values())
    found = {"dtypes": sorted(dtypes(clone)), "size": clone.model_size() - counted, "same": before == dtypes(streaming)}
    try:
        ours, theirs = teacher_and_student(streaming), teacher_and_student(expected)
    except RuntimeError as error:
        return found | {"error": str(error)}
    return found | {"difference": max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))}


def dtypes(patcher: Any) -> set[str]:
    return {str(each.dtype).removeprefix("torch.") for each in patcher.model.diffusion_model.parameters()}


def no_other_loader() -> list[str]:
    """What is said of streamed models that cannot be loaded in another way."""
    weights, errors = of_the_pack("nodes.host.weights"), of_the_pack("duolora_core.errors")
    told: list[str] = []
    for more in ({"cached_patcher_init": None}, {}):
        try:
            weights.plain_clone(types.SimpleNamespace(is_dynamic=lambda: True, **more))
        except errors.ModelMismatchError as error:
            told.append(str(error))
    return told


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


def precision() -> dict[str, Any]:
    """The switch for sums in float16 inside and after, with and without one; and a device that has no autocast."""
    own_precision = of_the_pack("nodes.host.precision").own_precision
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_accumulation = True
    with own_precision(CPU, 2):
        inside = matmul.allow_fp16_accumulation
    after, matmul.allow_fp16_accumulation = matmul.allow_fp16_accumulation, False
    torch.backends.cuda.matmul = older = types.SimpleNamespace(allow_tf32=False)
    try:
        with own_precision(torch.device("privateuseone"), 4):
            older_inside = dict(vars(older))
    finally:
        torch.backends.cuda.matmul = matmul
    return {"inside": inside, "after": after, "older": [older_inside, vars(older)]}


def pictures() -> dict[str, Any]:
    """How many pictures a training of 1,000 steps of 0.1 s shows that cost 27 ms each, and the steps of the first."""
    import comfy.utils

    progress = of_the_pack("nodes.host.progress")
    clock, shown = [100.0], []
    progress.time = types.SimpleNamespace(monotonic=lambda: clock[0])
    comfy.utils.ProgressBar = lambda total: types.SimpleNamespace(update_absolute=lambda *told: None)
    bar = progress.Progress(1000)
    for step in range(1, 1001):

        def picture(step: int = step) -> Any:
            clock[0] += 0.027
            shown.append(step)
            return types.SimpleNamespace(size=(512, 512))

        clock[0] += 0.1
        bar.update(step, picture)
    return {"count": len(shown), "first": shown[0], "last": shown[-1], "share": 0.027 * len(shown) / (clock[0] - 100)}


if __name__ == "__main__":
    main()
