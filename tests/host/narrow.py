"""The tiny checkpoint a fifth as wide, which the fixtures pack builds: a step of training takes a tenth of the time.

For tests of what does not depend on core's own loader and its recognition of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from host.checkpoint_cache import tiny_checkpoint
from host.graphs import NARROW
from host.hosts import Host
from host.lora_samples import Layer, attention_linears, load_layers, make_lora, text_layers

CONTENT, STYLE = "narrow_content.safetensors", "narrow_style.safetensors"
DORA = "narrow_dora.safetensors"
"""The LoRA files that the fixture `narrow` makes."""


def narrowed(layers: Iterable[Layer]) -> list[Layer]:
    """Its layers; text, sizes and latents are as wide as ever."""
    return [
        replace(layer, shape=tuple(size // 5 if size % 320 == 0 else size for size in layer.shape)) for layer in layers
    ]


def make_narrow_loras(folder: Path, layers: list[Layer]) -> None:
    """A content and a style LoRA for it, of the kinds that the fixture `loras` makes; from the wide model's layers."""
    layers = narrowed(layers)
    make_lora(folder / CONTENT, attention_linears(layers), rank=8, alpha=4, te_layers=text_layers())
    make_lora(folder / STYLE, layers, diffusers=True, rank=4, seed=5, dtype=torch.bfloat16)
    held = load_file(folder / CONTENT)
    lengths = {
        key.replace("lora_up.weight", "dora_scale"): torch.full((len(up), 1), 1.1)
        for key, up in held.items()
        if key.startswith("lora_unet_") and key.endswith("lora_up.weight")
    }
    save_file(held | lengths, folder / DORA)  # the content LoRA as a DoRA


def give_narrow_model(host: Host, base: Path) -> None:
    """Puts the narrow model and two LoRAs for it into a base directory."""
    wide = tiny_checkpoint(host)
    (base / "models" / "checkpoints" / NARROW).symlink_to(wide)
    make_narrow_loras(base / "models" / "loras", load_layers(wide.with_suffix(".layers.json")))
