"""A tiny SDXL-shaped UNet in float64, its layers, a denoiser over it, and pictures for it. All follows from seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.ldm_unet import TINY, UNet, UNetConfig, layer_shapes
from duolora_core import Picture, UNetLayout, layout_from_shapes
from duolora_core.model.denoiser import Prediction

ATTENTION = r"\.attn[12]\.to_(q|k|v|out\.0)$"
"""The layers on which the paper counts its parameters."""

VARIED = (
    r"^time_embed\.0$|^label_emb\.0\.2$"  # embeddings, which have no spatial dimension
    r"|^input_blocks\.0\.0$|^input_blocks\.3\.0\.op$|^output_blocks\.2\.2\.conv$|^out\.2$"  # stem, resampling, head
    r"|^input_blocks\.4\.0\.|^middle_block\.0\.|^output_blocks\.8\.0\."  # whole resnets: 3x3, 1x1 and emb_layers
    r"|^(input_blocks\.5|output_blocks\.1|output_blocks\.4)\.1\.(proj_in|proj_out|.*blocks\.0\.(attn[12]|ff)\.)"
)
"""A sample of every kind of layer with a weight matrix, at every depth of the UNet (norms are left out by `pick`)."""

TEXT_SHAPES = {
    "te1.text_model.encoder.layers.0.self_attn.q_proj": (12, 12),
    "te1.text_model.encoder.layers.1.mlp.fc1": (48, 12),
    "te2.text_model.encoder.layers.0.self_attn.out_proj": (20, 20),
    "te2.text_model.encoder.layers.3.mlp.fc2": (20, 80),
}


@cache
def layout(config: UNetConfig = TINY) -> UNetLayout:
    with torch.device("meta"):
        return layout_from_shapes(layer_shapes(UNet(config)))


def pick(pattern: str, table: UNetLayout | None = None) -> tuple[str, ...]:
    """The layers with a weight matrix (linear or convolution) whose canonical name the pattern finds."""
    layers = (table or layout()).layers
    return tuple(name for name, layer in layers.items() if len(layer.shape) > 1 and re.search(pattern, name))


def tiny_unet(dtype: torch.dtype = torch.float64, seed: int = 0) -> UNet:
    """Weights of standard deviation 1/√(fan in), so that signals keep their size; norms near (1, 0). Frozen."""
    with torch.device("meta"):
        unet = UNet(TINY)
    unet.to_empty(device="cpu").to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for module in unet.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.data = noise / math.sqrt(parameter[0].numel())
            else:
                is_gain = name == "weight"
                parameter.data = 0.1 * noise + (1.0 if is_gain else 0.0)
    return unet.to(dtype).requires_grad_(False)


def weighted_modules(unet: nn.Module) -> dict[str, nn.Module]:
    """{layer: module} for every module with a weight, as a host's denoiser gives them."""
    return {name: m for name, m in unet.named_modules() if isinstance(getattr(m, "weight", None), Tensor)}


@dataclass(frozen=True)
class Condition:
    """What a prompt becomes: text states (tokens, context) and pooled embedding (pooled,)."""

    context: Tensor
    pooled: Tensor


def condition(seed: int, tokens: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    return Condition(
        torch.randn(tokens, TINY.context, generator=generator), torch.randn(TINY.pooled, generator=generator)
    )


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    return Picture(torch.randn(4, *size, generator=generator), condition(seed + 1000), condition(seed + 2000))


@cache
def sdxl_alphas() -> Tensor:
    """ā of the 1000 training timesteps of SDXL (scaled linear betas, 0.00085 to 0.012), float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0)


@dataclass(frozen=True)
class Seen:
    """One sample that went through the network."""

    x: Tensor
    sigma: float
    condition: Any
    with_gradient: bool


class TinyDenoiser:
    """The `Denoiser` protocol over a UNet, in the dtype of its weights; `seen` records every sample forwarded."""

    def __init__(self, unet: UNet, prediction: Prediction = "eps", spoil: Callable[[Tensor], Tensor] = lambda x0: x0):
        self.unet = unet
        self.layout = layout()
        self.modules: Mapping[str, nn.Module] = weighted_modules(unet)
        self.sigmas = ((1 - sdxl_alphas()) / sdxl_alphas()).sqrt().to(torch.float32)
        self.prediction: Prediction = prediction
        self.spoil = spoil
        self.seen: list[Seen] = []

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        for sample, level, cond in zip(x, sigma, conditions, strict=True):
            self.seen.append(Seen(sample.detach().clone(), float(level), cond, torch.is_grad_enabled()))
        wide = x.to(next(self.unet.parameters()).dtype)
        level = sigma.to(wide)[:, None, None, None]
        root = (1 + level.square()).sqrt()
        output = run(self.unet, wide / root, self.timesteps(sigma), conditions)
        x0 = wide - level * output if self.prediction == "eps" else wide / root.square() - output * level / root
        return self.spoil(x0)

    def timesteps(self, sigma: Tensor) -> Tensor:
        """The nearest training timestep of each sigma, (batch,)."""
        return (self.sigmas[None] - sigma[:, None]).abs().argmin(1)


def run(unet: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Sequence[Any]) -> Tensor:
    context = torch.stack([cond.context for cond in conditions]).to(latents)
    return unet(latents, timesteps, context, torch.stack([cond.pooled for cond in conditions]).to(latents))


def inputs(batch: int, seed: int = 0, size: int = 8) -> tuple[Tensor, Tensor, list[Condition]]:
    """Latents, timesteps and conditions of a batch, float64."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, size, size, generator=generator, dtype=torch.float64)
    timesteps = torch.randint(1000, (batch,), generator=generator)
    return latents, timesteps, [condition(seed + 10 * i) for i in range(batch)]


def hooks(unet: nn.Module) -> int:
    """How many forward hooks hang on the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())  # pyright: ignore[reportPrivateUsage]
