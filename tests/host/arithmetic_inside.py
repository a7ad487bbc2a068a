"""Runs inside a host's python: what a training computes with, whatever the host was told to sample with, as JSON.

python arithmetic_inside.py --host PATH --pack PATH

There is no graphics card here, so what a card would bring in (attention on cuDNN, fp8 products, weights streamed from
disk) is put into the host's own classes by hand.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script
import torch
import torch.nn.functional as F
from arithmetic_models import (
    CPU,
    FP8,
    file_of_weights,
    of_the_pack,
    sdxl,
    teacher_and_student,
)
from arithmetic_products import fast_forward, fast_matmul, scaled_fp8
from torch import Tensor


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
