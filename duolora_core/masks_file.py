"""The masks alone: a small file from which, with the two source LoRAs, the same merge is made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import LoraFileError
from .gates import Gates, open_gates
from .lora_save import VERSION, write_safetensors
from .pair import Basis, LoraPair

_ROLES = ("content", "style")
_BASES: dict[str, Basis] = {"svd": "svd", "factors": "factors"}


def save_masks(path: Path, gates: Gates, pair: LoraPair, recipe: Mapping[str, Any]) -> Path:
    """Writes one (content rank + style rank,) float32 tensor per layer, and what it takes to use them again.

    Raises:
        DuoLoraError: the file exists already or cannot be written.
    """
    values = gates.values.detach().cpu()
    tensors = {name: values[slot.whole].clone() for name, slot in gates.slots.items()}
    return write_safetensors(path, tensors, _masks_metadata(pair, recipe))


@dataclass(frozen=True)
class Source:
    """A LoRA that masks were trained on."""

    name: str
    sha256: str
    strength: float


@dataclass(frozen=True)
class Masks:
    """A masks file as read.

    Attributes:
        values: {canonical layer: (content rank + style rank,)}
        content, style: the LoRAs that the masks belong to
        recipe: of the merge, as plain JSON data
    """

    name: str
    values: Mapping[str, Tensor]
    content: Source
    style: Source
    basis: Basis
    recipe: Mapping[str, Any]


def read_masks(path: Path) -> Masks:
    """Reads a masks file.

    Raises:
        LoraFileError: the file is damaged or no masks file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            held: dict[str, str] = file.metadata() or {}
            values: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise LoraFileError(f"{path.name} is not a readable masks file ({error}).") from error
    try:
        made_of = json.loads(held["duolora_masks"])
        content, style = (
            Source(str(made_of[role]["name"]), str(made_of[role]["sha256"]), float(made_of[role]["strength"]))
            for role in _ROLES
        )
        basis: Basis = _BASES[made_of["basis"]]
        recipe: dict[str, Any] = dict(json.loads(held["duolora_recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LoraFileError(
            f"{path.name} is not a DuoLoRA masks file. Choose one that was saved with 'masks only'."
        ) from error
    return Masks(path.name, values, content, style, basis, recipe)


def gates_of(masks: Masks, pair: LoraPair) -> Gates:
    """The masks as gates of a pair made from the same two LoRAs in the same basis.

    Raises:
        LoraFileError: the pair is of other LoRAs, another basis, other layers or other ranks.
    """
    for source, concept in ((masks.content, pair.content_concept), (masks.style, pair.style_concept)):
        if (source.sha256, source.strength) != (concept.file.sha256, concept.strength):
            role = "content" if source is masks.content else "style"
            raise LoraFileError(
                f"{masks.name} was made from the {role} LoRA {source.name} (sha256 {source.sha256[:12]}…, strength "
                f"{source.strength}), but {concept.file.name} (sha256 {concept.file.sha256[:12]}…, strength "
                f"{concept.strength}) is loaded. Load that one, at that strength."
            )
    if masks.basis != pair.basis:
        raise LoraFileError(f"{masks.name} holds masks for basis '{masks.basis}', but '{pair.basis}' is set.")
    gates = open_gates(pair)
    if set(masks.values) != set(gates.slots):
        missing = sorted(set(masks.values) ^ set(gates.slots))[0]
        raise LoraFileError(f"{masks.name} does not cover the same layers as this pair (first difference: {missing}).")
    for name, slot in gates.slots.items():
        values = masks.values[name]
        if values.shape != (slot.stop - slot.start,):
            raise LoraFileError(
                f"{masks.name}: layer {name} has {values.numel()} gates, the pair has {slot.stop - slot.start}."
            )
        gates.values[slot.whole] = values.to(torch.float32)
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
