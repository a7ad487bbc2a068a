"""Two loaded concepts on one model: where a merge, Load Masks and the baselines begin."""

from __future__ import annotations

from typing import Any

import torch

from ..duolora_core import Concept, LoraPair, make_pair, place
from ..duolora_core.errors import SettingsError
from ..duolora_core.files.texts import listed
from ..duolora_core.pair import Basis
from .host.denoiser import require_sdxl, unet_layout
from .sockets import LoadedConcept


def loaded_pair(model: Any, content: LoadedConcept, style: LoadedConcept, basis: Basis = "factors") -> LoraPair:
    """Both loaded LoRAs placed on a MODEL's UNet, as they are in their files unless another basis is asked for.

    Raises:
        DuoLoraError: the loaders are swapped, the model is not of the SDXL family, or a LoRA does not fit it.
    """
    for socket, concept in (("content", content), ("style", style)):
        if concept.role != socket:
            raise SettingsError(f"A {concept.role} LoRA is connected to the {socket} input. Swap the two loaders.")
    require_sdxl(model)
    with torch.inference_mode(False):
        layout = unet_layout(model.model)
        placed = [place(concept.file, layout, concept.strength) for concept in (content, style)]
        return make_pair(placed[0], placed[1], layout, basis)


def concept_note(role: str, concept: Concept) -> str:
    """One line on what was used of a LoRA."""
    return f"{role}: {concept.file.name}, {len(concept.layers)} UNet and {len(concept.text)} text encoder layers"


def coverage_notes(pair: LoraPair) -> list[str]:
    """How far both LoRAs overlap, and what was skipped and why."""
    both = sum(name in pair.content and name in pair.style for name in pair.names)
    lines = [f"{both} of {len(pair.names)} layers are covered by both LoRAs"]
    for concept in (pair.content_concept, pair.style_concept):
        lines += listed(f"skipped {key} of {concept.file.name}: {reason}" for key, reason in concept.skipped.items())
    return lines
