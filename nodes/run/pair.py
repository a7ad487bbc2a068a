"""Two loaded LoRAs on one model: where a merge, Load Masks and the baselines begin."""

from __future__ import annotations

from typing import Any

import torch

from ...duolora_core import LoraPair, PlacedLora, make_pair, match_to_model
from ...duolora_core.errors import SettingsError
from ...duolora_core.files.sanitize import listed
from ...duolora_core.merge.stack import Basis
from ..host.denoiser import require_sdxl, unet_layout
from .loaded_lora import LoadedLora


def loaded_pair(model: Any, content: LoadedLora, style: LoadedLora, basis: Basis = "factors") -> LoraPair:
    """Both loaded LoRAs placed on a MODEL's UNet, as they are in their files unless another basis is asked for.

    Raises:
        DuoLoraError: the loaders are swapped, the model is not of the SDXL family, or a LoRA does not fit it.
    """
    for socket, lora in (("content", content), ("style", style)):
        if lora.role != socket:
            raise SettingsError(f"A {lora.role} LoRA is connected to the {socket} input. Swap the two loaders.")
    require_sdxl(model)
    with torch.inference_mode(False):
        layout = unet_layout(model.model)
        placed = [match_to_model(lora.file, layout, lora.strength) for lora in (content, style)]
        return make_pair(placed[0], placed[1], layout, basis)


def lora_note(role: str, lora: PlacedLora) -> str:
    """One line on what was used of a LoRA."""
    return f"{role}: {lora.file.name}, {len(lora.layers)} UNet and {len(lora.text)} text encoder layers"


def coverage_notes(pair: LoraPair) -> list[str]:
    """How far both LoRAs overlap, and what was skipped and why."""
    both = sum(name in pair.content and name in pair.style for name in pair.names)
    lines = [f"{both} of {len(pair.names)} layers are covered by both LoRAs"]
    for lora in (pair.content_lora, pair.style_lora):
        lines += listed(f"skipped {key} of {lora.file.name}: {reason}" for key, reason in lora.skipped.items())
    return lines
