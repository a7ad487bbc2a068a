"""The masks alone: a small file from which, with the source LoRAs, the same merge is made again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from .stack import Basis, LoraStack, Side, label

_SIDES: tuple[Side, ...] = ("content", "style")
_ROUTER = ".router"
_BASES: dict[str, Basis] = {"svd": "svd", "factors": "factors"}
_LARGEST_GATE = 1e6
_LONGEST_TEXT, _MOST_ITEMS, _DEEPEST = 4000, 200, 8
"""Bounds of a recipe, which goes into reports, prompts and the metadata of new files; a real one has 2 KB."""


def save_masks(path: Path, gates: Gates, stack: LoraStack, recipe: Mapping[str, Any]) -> Path:
    """Writes one float32 tensor per layer, (sum of all ranks,), the router if there is one, and whose they are.

    Raises:
        DuoLoraError: the file exists already or cannot be written.
    """
    values = gates.values.detach().cpu()
    tensors = {name: values[slot.whole].clone() for name, slot in gates.slots.items()}
    tensors |= {f"{name}{_ROUTER}": router.to(torch.float32) for name, router in stack.router.items()}
    return write_safetensors(path, tensors, _masks_metadata(stack, recipe))


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
        values: {canonical layer: (sum of all ranks,)}
        router: {canonical layer: (R, R)}; empty where the merge has none
        contents, styles: the LoRAs that the masks belong to
        recipe: of the merge, as plain JSON data
    """

    name: str
    values: Mapping[str, Tensor]
    router: Mapping[str, Tensor]
    contents: tuple[Source, ...]
    styles: tuple[Source, ...]
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
        contents, styles = (
            tuple(_source(each) for each in (made_of[side], *made_of.get(f"more {side}", ()))) for side in _SIDES
        )
        basis: Basis = _BASES[made_of["basis"]]
        recipe = _recipe(json_of(held.metadata["duolora_recipe"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_masks(held.name) from error
    for key, tensor in held.tensors.items():
        shape = tuple(tensor.shape)
        sensible = len(set(shape)) == 1 and len(shape) == (2 if key.endswith(_ROUTER) else 1)
        largest = float(tensor.to(torch.float32).abs().max()) if tensor.numel() else 0.0
        if not (sensible and tensor.is_floating_point() and largest <= _LARGEST_GATE):  # not (NaN <= …)
            raise LoraFileError(
                f"{held.name}: the gates of layer {key} are not masks ({tensor.dtype} {shape}, largest {largest:g}). "
                "The file is damaged; merge again."
            )
    values = {name: tensor for name, tensor in held.tensors.items() if not name.endswith(_ROUTER)}
    router = {name[: -len(_ROUTER)]: held.tensors[name] for name in held.tensors if name.endswith(_ROUTER)}
    return Masks(held.name, values, router, contents, styles, basis, recipe)


def _source(found: Any) -> Source:
    return Source(sanitize(str(found["name"])), sanitize(str(found["sha256"]), 64), float(found["strength"]))


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


def gates_of(masks: Masks, stack: LoraStack) -> Gates:
    """The masks as gates of a stack made from the same LoRAs in the same basis; `routed` gives it their router.

    Raises:
        LoraFileError: the stack is of other LoRAs, another basis, other layers or other ranks.
    """
    for side, sources, loras in zip(
        _SIDES, (masks.contents, masks.styles), (stack.contents, stack.styles), strict=True
    ):
        if len(sources) != len(loras):
            names = ", ".join(source.name for source in sources)
            raise LoraFileError(
                f"{masks.name} was made from {len(sources)} {side} LoRAs ({names}), but {len(loras)} are loaded. "
                "Load those, in that order."
            )
        for number, (source, lora) in enumerate(zip(sources, loras, strict=True)):
            if (source.sha256, source.strength) != (lora.file.sha256, lora.strength):
                raise LoraFileError(
                    f"{masks.name} was made from the {label(side, number)} LoRA {source.name} (sha256 "
                    f"{source.sha256[:12]}…, strength {source.strength}), but {lora.file.name} (sha256 "
                    f"{lora.file.sha256[:12]}…, strength {lora.strength}) is loaded. Load that one, at that strength."
                )
    if masks.basis != stack.basis:
        raise LoraFileError(f"{masks.name} holds masks for basis '{masks.basis}', but '{stack.basis}' is set.")
    gates = open_gates(stack)
    if set(masks.values) != set(gates.slots):
        missing = sorted(set(masks.values) ^ set(gates.slots))[0]
        raise LoraFileError(f"{masks.name} does not cover the layers of these LoRAs (first difference: {missing}).")
    for name, slot in gates.slots.items():
        values = masks.values[name]
        if values.shape != (slot.stop - slot.start,):
            raise LoraFileError(
                f"{masks.name}: layer {name} has {values.numel()} gates, these LoRAs have {slot.stop - slot.start}."
            )
        gates.values[slot.whole] = values.to(torch.float32)
    return gates


def routed(masks: Masks, stack: LoraStack) -> LoraStack:
    """The stack with the router that the masks were trained behind, if there was one.

    Raises:
        LoraFileError: the router is of other layers or other ranks than the masks.
    """
    if not masks.router:
        return stack
    odd = [
        name for name in stack.names if name not in masks.router or len(masks.router[name]) != sum(stack.ranks(name))
    ]
    if odd or len(masks.router) != len(stack.names):
        raise LoraFileError(
            f"{masks.name}: its router does not fit its masks (layer {[*odd, 'unknown'][0]}). Merge again."
        )
    return replace(stack, router={name: router.to(torch.float32) for name, router in masks.router.items()})


def roles_of(masks: Masks, layout: UNetLayout) -> dict[str, Role]:
    """The roles of the layers by the prior that the masks were trained with.

    Raises:
        LoraFileError: the file's recipe names a prior that means nothing on this model.
    """
    try:
        return layer_roles(layout, str(masks.recipe.get("config", {}).get("layer_prior", "none")))
    except SettingsError as error:
        raise LoraFileError(f"{masks.name}: its recipe is damaged or for another model. {error}") from error


def _masks_metadata(stack: LoraStack, recipe: Mapping[str, Any]) -> dict[str, str]:
    made_of: dict[str, Any] = {"basis": stack.basis}
    for side, loras in zip(_SIDES, (stack.contents, stack.styles), strict=True):
        sources = [{"name": lora.file.name, "sha256": lora.file.sha256, "strength": lora.strength} for lora in loras]
        made_of[side] = sources[0]
        if len(sources) > 1:
            made_of[f"more {side}"] = sources[1:]
    return {
        "duolora_version": VERSION,
        "duolora_masks": json.dumps(made_of, sort_keys=True),
        "duolora_recipe": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
    }
