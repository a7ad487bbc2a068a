"""The masks alone: a small file from which, with the two source LoRAs, the same merge is made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import LoraFileError
from .gates import Gates, open_gates
from .lora_save import VERSION, write_safetensors
from .pair import LoraPair

_ROLES = ("content", "style")


def save_masks(path: Path, gates: Gates, pair: LoraPair, recipe: Mapping[str, Any]) -> Path:
    """Writes one (content rank + style rank,) float32 tensor per layer, and what it takes to use them again.

    Raises:
        DuoLoraError: the file exists already or cannot be written.
    """
    values = gates.values.detach().cpu()
    tensors = {name: values[slot.whole].clone() for name, slot in gates.slots.items()}
    return write_safetensors(path, tensors, _masks_metadata(pair, recipe))


def load_masks(path: Path, pair: LoraPair) -> Gates:
    """The gates of a masks file for a pair made from the same two LoRAs in the same basis.

    Raises:
        LoraFileError: not a masks file, or made from other LoRAs, another basis or other ranks.
    """
    try:
        with safe_open(path, framework="pt") as file:
            held: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise LoraFileError(f"{path.name} is not a readable masks file ({error}).") from error
    try:
        made_of = json.loads(held["duolora_masks"])
        sources = {role: (str(made_of[role]["sha256"]), float(made_of[role]["strength"])) for role in _ROLES}
        basis = str(made_of["basis"])
    except (KeyError, TypeError, ValueError) as error:
        raise LoraFileError(
            f"{path.name} is not a DuoLoRA masks file. Choose one that was saved with 'masks only'."
        ) from error
    for role, concept in zip(_ROLES, (pair.content_concept, pair.style_concept), strict=True):
        sha256, strength = sources[role]
        if (sha256, strength) != (concept.file.sha256, concept.strength):
            raise LoraFileError(
                f"{path.name} was made from the {role} LoRA {made_of[role].get('name')} (sha256 {sha256[:12]}…, "
                f"strength "
                f"{strength}), but {concept.file.name} (sha256 {concept.file.sha256[:12]}…, strength "
                f"{concept.strength}) "
                "is loaded. Load that one."
            )
    if basis != pair.basis:
        raise LoraFileError(f"{path.name} holds masks for basis '{basis}', but '{pair.basis}' is set.")
    gates = open_gates(pair)
    if set(tensors) != set(gates.slots):
        missing = sorted(set(tensors) ^ set(gates.slots))[0]
        raise LoraFileError(f"{path.name} does not cover the same layers as this pair (first difference: {missing}).")
    for name, slot in gates.slots.items():
        if tensors[name].shape != (slot.stop - slot.start,):
            raise LoraFileError(
                f"{path.name}: layer {name} has {tensors[name].numel()} gates, the pair has {slot.stop - slot.start}."
            )
        gates.values[slot.whole] = tensors[name].to(torch.float32)
    return gates


def _masks_metadata(pair: LoraPair, recipe: Mapping[str, Any]) -> dict[str, str]:
    made_of = {
        role: {"name": concept.file.name, "sha256": concept.file.sha256, "strength": concept.strength}
        for role, concept in zip(_ROLES, (pair.content_concept, pair.style_concept), strict=True)
    }
    return {
        "duolora_version": VERSION,
        "duolora_masks": json.dumps({**made_of, "basis": pair.basis}, sort_keys=True),
        "duolora_recipe": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
    }
