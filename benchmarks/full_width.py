"""One merge at SDXL's full width on the CPU: 2.6 B random weights in bf16, two rank-64 LoRAs on all attention linears.

    python -m benchmarks.full_width --pixels 256 --steps 3

Prints one JSON line: peak memory of the process in GB, seconds per step, seconds for the SVD basis and for folding.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.ldm_unet import SDXL, ResBlock, TransformerBlock, UNet, layer_shapes
from duolora_core import (
    MergeConfig,
    Picture,
    UNetLayout,
    attach,
    kohya_state_dict,
    layer_roles,
    layout_from_shapes,
    lora_from_tensors,
    make_merged,
    make_pair,
    place,
    starting_gates,
    train,
)
from duolora_core.denoiser import Prediction

DTYPE = torch.bfloat16


class FullWidthDenoiser:
    """The plain UNet as an eps-predicting Denoiser; a condition is a number that seeds its text states."""

    prediction: Prediction = "eps"

    def __init__(self, unet: UNet):
        self.unet = unet
        self.modules: Mapping[str, nn.Module] = dict(unet.named_modules())
        self.layout = layout_from_shapes(layer_shapes(unet))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, dim=0)
        self.sigmas = ((1 - alphas) / alphas).sqrt().float()

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        config = self.unet.config
        text = [torch.randn(77 * config.context + config.pooled, generator=_seeded(c)) for c in conditions]
        states = torch.stack([t[: 77 * config.context].view(77, -1) for t in text]).to(DTYPE)
        pooled = torch.stack([t[77 * config.context :] for t in text]).to(DTYPE)
        scaled = (x / (1 + sigma.square()).sqrt().view(-1, 1, 1, 1)).to(DTYPE)
        timesteps = (self.sigmas[None] - sigma[:, None]).abs().argmin(dim=1)
        return x - sigma.view(-1, 1, 1, 1) * self.unet(scaled, timesteps, states, pooled).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rank", type=int, default=64)
    wanted = parser.parse_args()

    denoiser = FullWidthDenoiser(random_unet())
    with_weights = _peak_gb()
    started = time.perf_counter()
    concepts = [place(random_lora(denoiser.layout, wanted.rank, seed), denoiser.layout) for seed in (1, 2)]
    pair = make_pair(concepts[0], concepts[1], denoiser.layout)
    basis_seconds = time.perf_counter() - started
    config = MergeConfig(steps=wanted.steps, micro_batch=4)
    roles = layer_roles(denoiser.layout, config.layer_prior)
    gates = starting_gates(pair, roles, config)
    latents = [torch.randn(4, wanted.pixels // 8, wanted.pixels // 8, generator=_seeded(seed)) for seed in (3, 4)]
    pictures = [[Picture(latent, own, 9)] for own, latent in zip((7, 8), latents, strict=True)]
    with attach(denoiser.modules, pair, gates) as gated:
        reports = list(train(denoiser, gated, pictures[0], pictures[1], roles, config))
    started = time.perf_counter()
    tensors = kohya_state_dict(make_merged(pair, gates).fold())
    result = {
        "parameters": sum(p.numel() for p in denoiser.unet.parameters()),
        "gates": len(gates.values),
        "peak_gb": round(_peak_gb(), 2),
        "peak_gb_weights_alone": round(with_weights, 2),
        "step_seconds": [round(report.seconds, 1) for report in reports],
        "losses": [round(report.losses["total"], 4) for report in reports],
        "basis_seconds": round(basis_seconds, 1),
        "fold_seconds": round(time.perf_counter() - started, 1),
        "file_mb": round(sum(tensor.nbytes for tensor in tensors.values()) / 1e6),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def random_unet() -> UNet:
    """SDXL's UNet with random weights of a sane size, frozen, with gradient checkpointing in every block."""
    with torch.device("meta"):
        unet = UNet(SDXL)
    unet = unet.to(DTYPE).to_empty(device="cpu").requires_grad_(False)
    generator = _seeded(0)
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.normal_(0.0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        if isinstance(module, ResBlock | TransformerBlock):
            module.forward = _checkpointed(module.forward)
    return unet


def random_lora(layout: UNetLayout, rank: int, seed: int) -> Any:
    """A gentle random LoRA in fp16 over all attention linears."""
    generator = _seeded(seed)
    tensors: dict[str, Tensor] = {}
    for name, layer in layout.layers.items():
        if ".attn" in name:
            key = "lora_unet_" + name.replace(".", "_")
            down = torch.randn(rank, layer.shape[1], generator=generator) * layer.shape[1] ** -0.5
            up = torch.randn(layer.shape[0], rank, generator=generator) * 0.3 * layer.shape[0] ** -0.5
            tensors[f"{key}.lora_down.weight"] = down.half()
            tensors[f"{key}.lora_up.weight"] = up.half()
    return lora_from_tensors(tensors, f"random {seed}")


def _checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*args: Tensor) -> Tensor:
        return checkpoint(forward, *args, use_reentrant=False) if torch.is_grad_enabled() else forward(*args)

    return run


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
