"""Files that are not merged, and what must be said of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from duolora_core import DuoLoraError, match_to_model, read_lora
from lora.test_read_refused import FOREIGN
from one_layer import SDXL_KEY, pair_of
from wild_loras.layers import Family
from wild_loras.sample import written

TEXT_KEY = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
CASES: dict[str, tuple[dict[str, Tensor], str]] = {
    "text encoder only": (pair_of(TEXT_KEY), "changes only the text encoders"),
    "checkpoint": ({"model.diffusion_model.out.2.weight": torch.ones(2)}, "a checkpoint: load it with Load Checkpoint"),
    "embedding": ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, "It is an embedding"),
    "control LoRA": ({"lora_controlnet": torch.ones(1), "out.0.up": torch.ones(2)}, "It is a control LoRA"),
    "unknown architecture": (pair_of("diffusion_model.stages.0.mixer"), "an architecture that DuoLoRA does not know"),
    "OFT of PEFT": ({f"{SDXL_KEY}.oft_R.default.weight": torch.ones(4, 6)}, "an OFT of PEFT"),
    "VeRA": ({f"{SDXL_KEY}.vera_lambda_b": torch.ones(4)}, "a shared-basis adapter".removeprefix("a ")),
    "rescaled OFT": (
        {f"{SDXL_KEY}.oft_blocks": torch.ones(4, 4, 4) / 9, f"{SDXL_KEY}.rescale": torch.full((16, 1), 2.0)},
        "a trained rescale",
    ),
    "two adapters": (pair_of(SDXL_KEY) | {f"{SDXL_KEY}.diff": torch.ones(16, 16)}, "at once"),
    **{f"{family} {number}": (tensors, family) for number, (family, tensors) in enumerate(FOREIGN)},
}


def faults(family: Family, folder: Path) -> Iterator[str | None]:
    """For each file what is wrong with how it is refused, or None."""
    for number, (name, (tensors, words)) in enumerate(CASES.items()):
        path = written(folder / f"refused_{number}" / "odd.safetensors", tensors)
        try:
            match_to_model(read_lora(path), family.layout, weight=family.weight)
        except DuoLoraError as error:
            yield None if words in str(error) else f"{name}: said was {error}"
        else:
            yield f"{name}: taken"
