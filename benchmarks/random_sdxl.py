"""Random UNets of the SDXL family and random LoRAs, for what does not depend on the weights: FLOPs, bytes, time.

    denoiser = UNetDenoiser(random_unet(SDXL, torch.bfloat16, "cuda"))
    pair = random_pair(denoiser, rank=64)
    content, style = random_pictures(pixels=1024)

On the meta device a model of full size costs no memory, and an operation on it no time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.ldm_unet import UNet, UNetConfig, layer_shapes
from duolora_core import LoraPair, Picture, UNetLayout, layout_from_shapes, lora_from_tensors, make_pair, match_to_model
from duolora_core.lora.read import LoraFile
from duolora_core.merge.stack import Basis
from duolora_core.model.denoiser import Prediction
from duolora_core.model.memory.activations import block_levels
from duolora_core.model.memory.estimate import Checkpointing, MemoryPlan

TOKENS = 77


class UNetDenoiser:
    """The plain UNet as an eps-predicting Denoiser; a condition is a number that seeds its text states."""

    prediction: Prediction = "eps"

    def __init__(self, unet: UNet):
        self.unet = unet
        weight = next(unet.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        self.modules: Mapping[str, nn.Module] = dict(unet.named_modules())
        self.layout = layout_from_shapes(layer_shapes(unet))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, dim=0)
        self.sigmas = ((1 - alphas) / alphas).sqrt().float().to(self.device)
        self._texts: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[int]) -> Tensor:
        texts = [self.text(condition) for condition in conditions]
        states, pooled = torch.stack([text[0] for text in texts]), torch.stack([text[1] for text in texts])
        level = sigma.view(-1, 1, 1, 1)
        scaled = (x / (1 + level.square()).sqrt()).to(self.dtype)
        timesteps = (self.sigmas[None] - sigma[:, None]).abs().argmin(dim=1)
        return x - level * self.unet(scaled, timesteps, states, pooled).to(x.dtype)

    def text(self, condition: int) -> tuple[Tensor, Tensor]:
        """States (tokens, context) and pooled embedding (pooled,), encoded once."""
        if condition not in self._texts:
            config = self.unet.config
            numbers = torch.randn(TOKENS * config.context + config.pooled, generator=seeded(condition))
            states, pooled = numbers.to(self.device, self.dtype).split([TOKENS * config.context, config.pooled])
            self._texts[condition] = states.view(TOKENS, -1), pooled
        return self._texts[condition]


def random_unet(config: UNetConfig, dtype: torch.dtype, device: str = "cpu") -> UNet:
    """A frozen UNet whose weights have a standard deviation of 1/√(fan in), so that signals keep their size."""
    with torch.device("meta"):
        unet = UNet(config)
    unet = unet.to(dtype).to_empty(device=device).requires_grad_(False)
    generator = torch.Generator("cpu" if device == "meta" else device).manual_seed(0)
    for module in unet.modules() if device != "meta" else ():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.normal_(0.0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    return unet


def random_lora(layout: UNetLayout, rank: int, seed: int) -> LoraFile:
    """A gentle random LoRA in fp16 over all attention linears."""
    generator = seeded(seed)
    tensors: dict[str, Tensor] = {}
    for name, layer in layout.layers.items():
        if ".attn" in name:
            key = "lora_unet_" + name.replace(".", "_")
            down = torch.randn(rank, layer.shape[1], generator=generator) * layer.shape[1] ** -0.5
            up = torch.randn(layer.shape[0], rank, generator=generator) * 0.3 * layer.shape[0] ** -0.5
            tensors[f"{key}.lora_down.weight"] = down.half()
            tensors[f"{key}.lora_up.weight"] = up.half()
    return lora_from_tensors(tensors, f"random {seed}")


def random_pair(layout: UNetLayout, rank: int, basis: Basis = "svd") -> LoraPair:
    """Two of them, stacked."""
    content, style = (match_to_model(random_lora(layout, rank, seed), layout) for seed in (1, 2))
    return make_pair(content, style, layout, basis)


def random_pictures(pixels: int) -> tuple[list[Picture], list[Picture]]:
    """One content and one style picture of a width and height of `pixels`; both share the combined prompt."""
    size = pixels // 8
    latents = [torch.randn(4, size, size, generator=seeded(seed)) for seed in (3, 4)]
    return [Picture(latents[0], own=7, combined=9)], [Picture(latents[1], own=8, combined=9)]


@contextmanager
def checkpointed(unet: UNet, mode: Checkpointing = "all") -> Generator[None, None, None]:
    """Inside, blocks of this mode keep only their inputs and run again in the backward pass."""
    modules, plan = dict(unet.named_modules()), MemoryPlan(1, mode)
    levels = block_levels(layout_from_shapes(layer_shapes(unet)))
    blocks = [modules[name] for name, level in levels.items() if plan.recomputes(level)]
    try:
        for block in blocks:
            block.forward = _checkpointing(block.forward)
        yield
    finally:
        for block in blocks:
            del block.forward


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _checkpointing(forward: Callable[..., Tensor]) -> Callable[..., Any]:
    def run(*args: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)

    return run
