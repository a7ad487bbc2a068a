"""What training LoRAs from pictures costs on SDXL's real structure: FLOPs and bytes, counted on the meta device.

    python -m benchmarks.speed.train_lora

One rank-64 LoRA on all attention linears (DreamBooth), the same on two blocks (B-LoRA), and a content and a style LoRA
with their columns and prompts (UnZipLoRA); one picture a step, bf16. The limit is a forward and a backward that gives
every adapted layer's output its gradient and makes none for a weight: adapters for nothing. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from typing import Any, cast

import torch

from benchmarks.ldm_unet import SDXL, UNetConfig
from benchmarks.random_sdxl import UNetDenoiser, checkpointed, random_unet
from benchmarks.speed.flops import flops, passing_flops
from benchmarks.speed.live_memory import LiveMemory, fused_attention
from benchmarks.speed.meta import ReadingOnes
from duolora_core import StepReport
from duolora_core.model.layout import UNetLayout
from duolora_core.model.memory.estimate import CHECKPOINTED_LEVELS, Checkpointing, MemoryPlan, Storage, estimate
from duolora_core.train_lora import (
    Example,
    LoraConfig,
    TrainableLora,
    TrainConfig,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    train_lora,
    train_lora_workload,
    unzip,
    unzip_loras,
)
from duolora_core.train_lora.trainable_lora import Side

GB = 2**30
Loras = dict[Side, TrainableLora]
MAKERS: Mapping[str, Callable[[UNetLayout, LoraConfig], Loras]] = {
    "plain": lambda layout, form: concept_lora(layout, "content", form),
    "b_lora": b_loras,
    "unzip": lambda layout, form: unzip_loras(layout, form, UnzipConfig()),
}


def meta_denoiser(config: UNetConfig = SDXL) -> UNetDenoiser:
    return UNetDenoiser(random_unet(config, torch.bfloat16, "meta"))


@contextmanager
def stepping(
    denoiser: UNetDenoiser, method: str, loras: Loras, pixels: int, checkpointing: Checkpointing = "none"
) -> Generator[Callable[[], StepReport], None, None]:
    """A function that does one whole training step; the first opens UnZipLoRA's columns and reads its prompts."""
    latent = torch.zeros(4, pixels // 8, pixels // 8)
    with checkpointed(denoiser.unet, checkpointing), attach_loras(denoiser.modules, loras) as attached:
        if method == "unzip":
            config = UnzipConfig(probes=1)  # each is one more step of the same kind, three times in a training
            reports = unzip(denoiser, attached, [latent], UnzipPrompts(1, 2, 3), config)
        else:
            reports = train_lora(denoiser, attached, [Example(latent, 1)], TrainConfig())
        with closing(cast("Generator[StepReport]", reports)):
            yield lambda: next(reports)


def over_limit(denoiser: UNetDenoiser, method: str, pixels: int, rank: int = 64) -> float:
    """FLOPs of a whole step, optimiser and all, over those with adapters for nothing."""
    loras = MAKERS[method](denoiser.layout, LoraConfig(rank))
    names = list(dict.fromkeys(name for lora in loras.values() for name in lora.up))
    limit = passing_flops(denoiser, names, pixels)
    with ReadingOnes(), stepping(denoiser, method, loras, pixels) as step:
        step()
        return flops(step) / limit


def memory(
    denoiser: UNetDenoiser, method: str, pixels: int, checkpointing: Checkpointing, rank: int = 64
) -> tuple[int, int]:
    """(estimated, measured) peak bytes of a training with its weights; measured over set-up and a whole step."""
    weights = sum(parameter.nbytes for parameter in denoiser.unet.parameters())
    side = pixels // 8
    loras = MAKERS[method](denoiser.layout, LoraConfig(rank))
    work = train_lora_workload(denoiser.layout, loras, [(side, side)], samples=1)
    planned = estimate(work, Storage(weights, 2, casts=False), MemoryPlan(1, checkpointing)).total
    with (
        ReadingOnes(),
        fused_attention(),
        LiveMemory("meta") as live,
        stepping(denoiser, method, loras, pixels, checkpointing) as step,
    ):
        step()
        step()  # only now are there moments
    return planned, weights + live.peak


def main() -> None:
    torch.set_num_threads(1)
    denoiser = meta_denoiser()
    found: dict[str, Any] = {"flops_over_limit": {}, "checkpointed_1024_gb": {}, "estimate_over_measured": {}}
    for method in MAKERS:
        found["flops_over_limit"][method] = round(over_limit(denoiser, method, 1024), 3)
        for checkpointing in CHECKPOINTED_LEVELS:
            planned, measured = memory(denoiser, method, 1024, checkpointing)
            key = f"{method}, checkpointing {checkpointing}"
            found["estimate_over_measured"][key] = round(planned / measured, 3)
            if checkpointing == "all":
                found["checkpointed_1024_gb"][method] = round(measured / GB, 2)
            sys.stdout.write(f"{key}: estimated {planned / GB:.2f} GB, measured {measured / GB:.2f} GB\n")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
