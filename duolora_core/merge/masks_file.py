"""The masks alone: a small file from which, with the two source LoRAs, the same merge is made again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import LoraFileError, SettingsError
from ..files.sanitize import json_of, sanitize
from ..files.tensor_file import read_tensors
from ..files.tensor_header import Header
from ..lora.metadata import VERSION
from ..lora.save import write_safetensors
from ..model.layout import UNetLayout
from .gates import Gates, open_gates
from .roles import Role, layer_roles
from .stack import Basis, LoraPair

_ROLES = ("content", "style")
_BASES: dict[str, Basis] = {"svd": "svd", "factors": "factors"}
_LARGEST_GATE = 1e6
_LONGEST_TEXT, _MOST_ITEMS, _DEEPEST = 4000, 200, 8
"""Bounds of a recipe, which goes into reports, prompts and the metadata of new files; a real one has 2 KB."""


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
        LoraFileError: the file is damaged, no masks file, or holds gates that are no sensible numbers.
    """
    held = read_tensors(path, _expect_masks)
    try:
        made_of = json_of(held.metadata["duolora_masks"])
        content, style = (
            Source(
                sanitize(str(made_of[role]["name"])),
                sanitize(str(made_of[role]["sha256"]), 64),
                float(made_of[role]["strength"]),
            )
            for role in _ROLES
        )
        basis: Basis = _BASES[made_of["basis"]]
        recipe = _recipe(json_of(held.metadata["duolora_recipe"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_masks(held.name) from error
    for layer, values in held.tensors.items():
        largest = float(values.to(torch.float32).abs().max()) if values.numel() else 0.0
        if values.ndim != 1 or not values.is_floating_point() or not largest <= _LARGEST_GATE:  # not (NaN <= …)
            raise LoraFileError(
                f"{held.name}: the gates of layer {layer} are not masks ({values.dtype} {tuple(values.shape)}, largest "
                f"{largest:g}). The file is damaged; merge again."
            )
    return Masks(held.name, held.tensors, content, style, basis, recipe)


def _expect_masks(name: str, header: Header) -> None:
    if not header.metadata.keys() >= {"duolora_masks", "duolora_recipe"}:
        raise _no_masks(name)


def _no_masks(name: str) -> LoraFileError:
    return LoraFileError(f"{name} is not a DuoLoRA masks file. Choose one that was saved with 'masks only'.")


def _recipe(found: Any) -> dict[str, Any]:
    """The recipe as the rest of the pack may take it for granted: `config` and each of `inputs` are tables.

    Raises:
        ValueError: it is no such recipe, or larger than any.
    """
    recipe = _bounded(found, _DEEPEST)
    inputs = recipe.get("inputs", {}) if isinstance(recipe, dict) else None
    if inputs is None or not all(isinstance(each, dict) for each in (inputs, recipe.get("config", {}))):
        raise ValueError("not a recipe")
    if not all(isinstance(each, dict) for each in inputs.values()):
        raise ValueError("not a recipe")
    return recipe


def _bounded(found: Any, depth: int) -> Any:
    """Plain JSON data with texts cut and made printable.

    Raises:
        ValueError: too deep, too many items, or a number that JSON cannot write again.
    """
    if isinstance(found, str):
        return sanitize(found, _LONGEST_TEXT, keep_lines=True)
    if isinstance(found, dict | list):
        items = cast("dict[str, Any] | list[Any]", found)
        if depth == 0 or len(items) > _MOST_ITEMS:
            raise ValueError("not a recipe")
        if isinstance(items, dict):
            return {sanitize(key): _bounded(value, depth - 1) for key, value in items.items()}
        return [_bounded(value, depth - 1) for value in items]
    if isinstance(found, int | float) and not (math.isfinite(found) and abs(found) < 1 << 64):
        raise ValueError("not a recipe")
    return found


def gates_of(masks: Masks, pair: LoraPair) -> Gates:
    """The masks as gates of a pair made from the same two LoRAs in the same basis.

    Raises:
        LoraFileError: the pair is of other LoRAs, another basis, other layers or other ranks.
    """
    for source, lora in ((masks.content, pair.content_lora), (masks.style, pair.style_lora)):
        if (source.sha256, source.strength) != (lora.file.sha256, lora.strength):
            role = "content" if source is masks.content else "style"
            raise LoraFileError(
                f"{masks.name} was made from the {role} LoRA {source.name} (sha256 {source.sha256[:12]}…, strength "
                f"{source.strength}), but {lora.file.name} (sha256 {lora.file.sha256[:12]}…, strength "
                f"{lora.strength}) is loaded. Load that one, at that strength."
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


def roles_of(masks: Masks, layout: UNetLayout) -> dict[str, Role]:
    """The roles of the layers by the prior that the masks were trained with.

    Raises:
        LoraFileError: the file's recipe names a prior that means nothing on this model.
    """
    try:
        return layer_roles(layout, str(masks.recipe.get("config", {}).get("layer_prior", "none")))
    except SettingsError as error:
        raise LoraFileError(f"{masks.name}: its recipe is damaged or for another model. {error}") from error


def _masks_metadata(pair: LoraPair, recipe: Mapping[str, Any]) -> dict[str, str]:
    made_of = {
        role: {"name": lora.file.name, "sha256": lora.file.sha256, "strength": lora.strength}
        for role, lora in zip(_ROLES, (pair.content_lora, pair.style_lora), strict=True)
    }
    return {
        "duolora_version": VERSION,
        "duolora_masks": json.dumps({**made_of, "basis": pair.basis}, sort_keys=True),
        "duolora_recipe": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
    }
