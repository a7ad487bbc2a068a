"""The smallest LoRA: all ones in one layer, under any name and suffixes, for tests about keys and files."""

from __future__ import annotations

import torch
from torch import Tensor

SDXL_KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def pair_of(
    key: str, outputs: int = 16, inputs: int = 16, up: str = ".lora_up.weight", down: str = ".lora_down.weight"
) -> dict[str, Tensor]:
    return {key + up: torch.ones(outputs, 2), key + down: torch.ones(2, inputs)}
