"""The narrow model as files in three dtypes, so that a host's own loaders read it, stream it and cast it to fp8."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from host.checkpoint_cache import tiny_checkpoint
from host.hosts import Host
from host.lora_samples import load_layers
from host.narrow import make_narrow_loras

UNET = "model.diffusion_model."
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def file_name(dtype: str) -> str:
    return f"narrow_{dtype}.safetensors"


def give_models(host: Host, base: Path) -> None:
    """Puts the checkpoints and two LoRAs for them into a base directory."""
    wide = tiny_checkpoint(host)
    held = load_file(wide)
    for name, dtype in DTYPES.items():
        tensors = {
            key: narrowed(value).to(dtype) if key.startswith(UNET) else value.clone() for key, value in held.items()
        }
        save_file(tensors, base / "models" / "checkpoints" / file_name(name))
    folder = base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    for name in DTYPES:
        (folder / file_name(name)).symlink_to(base / "models" / "checkpoints" / file_name(name))
    make_narrow_loras(base / "models" / "loras", load_layers(wide.with_suffix(".layers.json")))


def narrowed(weight: Tensor) -> Tensor:
    """A corner of a weight, each width a fifth, whose products have the same variance."""
    corner = weight.float()
    for dim, size in enumerate(weight.shape):
        if size % 320 == 0:
            corner = corner.narrow(dim, 0, size // 5)
    if weight.ndim > 1:
        corner = corner * (weight[0].numel() / corner[0].numel()) ** 0.5
    return corner.contiguous()
