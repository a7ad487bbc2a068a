"""A narrow SDXL of the host's own class, and a training's forwards on it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch
from inside_host import of_the_pack
from torch import Tensor

UNET_CONFIG: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures_pack" / "unet.json").read_bytes())
UNET_CONFIG.update({"model_channels": 32, "num_head_channels": 32})
CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn


def sdxl(dtype: torch.dtype, compute: torch.dtype | None, state: dict[str, Tensor], operations: Any = None) -> Any:
    """A narrow SDXL of the host's own class, held in `dtype`, in the patcher of a loader that does not stream."""
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
