"""Two loaded LoRAs on one model: where a merge, Load Masks and the baselines begin."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from ...duolora_core import LoraPair, PlacedLora, make_pair, match_to_model
from ...duolora_core.errors import SettingsError
from ...duolora_core.files.sanitize import listed
from ...duolora_core.lora.adapters import CPU, PlainLora
from ...duolora_core.merge.stack import Basis
from ..host.base_weights import base_weights
from ..host.decomposition import decomposition_device
from ..host.denoiser import require_sdxl, unet_layout
from .loaded_lora import LoadedLora

_MOST_LAYERS = 100
"""Whose loss a recipe names; it is read again with every masks file, and bounded there."""


def loaded_pair(
    model: Any, clip: Any | None, content: LoadedLora, style: LoadedLora, basis: Basis = "factors"
) -> LoraPair:
    """Both loaded LoRAs placed on a MODEL's UNet, as they are in their files unless another basis is asked for.

    Args:
        clip: for adapters of text encoders whose change depends on the checkpoint's own weights

    Raises:
        DuoLoraError: the loaders are swapped, the model is not of the SDXL family, or a LoRA does not fit it.
    """
    for socket, lora in (("content", content), ("style", style)):
        if lora.role != socket:
            raise SettingsError(f"A {lora.role} LoRA is connected to the {socket} input. Swap the two loaders.")
    require_sdxl(model)
    with torch.inference_mode(False):
        layout = unet_layout(model.model)
        weights = base_weights(model, clip)
        odd = any(each.file.kinds.keys() - {PlainLora.kind} for each in (content, style))
        device = decomposition_device(model) if odd else CPU
        placed = [
            match_to_model(each.file, layout, each.strength, weights, each.adapter_rank, each.text_strength, device)
            for each in (content, style)
        ]
        return make_pair(placed[0], placed[1], layout, basis)


def lora_note(role: str, lora: PlacedLora) -> str:
    """One line on what was used of a LoRA."""
    return f"{role}: {lora.file.name}, {len(lora.layers)} UNet and {len(lora.text)} text encoder layers"


def approximation_notes(lora: PlacedLora) -> list[str]:
    """What became of adapters that are not low-rank by themselves, and what was lost in all and in the worst layers."""
    found = lora.approximations
    if not found:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in found.values()).items())
    ranks = sorted(each.rank for each in found.values())
    lines = [
        f"{lora.file.name}: {kinds} layers became plain LoRA of rank {ranks[0]} to {ranks[-1]}, "
        f"{lora.lost:.2%} of their energy is lost"
    ]
    for why, count in Counter(each.by_cpu for each in found.values() if each.by_cpu).items():
        lines.append(f"  {count} of them on the CPU, since the graphics card could not ({why}): as good, but slower")
    worst = sorted(found.items(), key=lambda each: -each[1].lost)[:3]
    lines += [f"  {name}: rank {each.rank}, lost {each.lost:.1%}" for name, each in worst if each.lost > 0.01]
    if lora.lost > 0.05:
        lines.append(
            f"WARNING: more than 5 % of {lora.file.name} is lost. Raise adapter_rank on its loader: the largest "
            f"rank is {ranks[-1]}."
        )
    return lines


def approximation_recipe(lora: PlacedLora) -> dict[str, Any]:
    """The same for a merge's recipe, as plain JSON data; nothing for a LoRA that is low-rank as it is.

    The loss of each layer is there where it rounds to a thousandth, of the hundred worst at most.
    """
    found = lora.approximations
    if not found:
        return {}
    kinds = Counter(each.kind for each in found.values())
    ranks = [each.rank for each in found.values()]
    losses = {name: round(each.lost, 3) for name, each in found.items()}
    worst = sorted((name for name in losses if losses[name]), key=lambda name: -losses[name])[:_MOST_LAYERS]
    return {
        "approximated": {
            "kinds": dict(kinds),
            "largest_rank": max(ranks),
            "lost_energy": round(lora.lost, 6),
            "lost_by_layer": {name: losses[name] for name in worst},
        }
    }


def coverage_notes(pair: LoraPair) -> list[str]:
    """How far both LoRAs overlap, and what was skipped and why."""
    both = sum(name in pair.content and name in pair.style for name in pair.names)
    lines = [f"{both} of {len(pair.names)} layers are covered by both LoRAs"]
    for lora in (pair.content_lora, pair.style_lora):
        lines += approximation_notes(lora)
        lines += listed(f"skipped {key} of {lora.file.name}: {reason}" for key, reason in lora.skipped.items())
    return lines
