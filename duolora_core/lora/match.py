"""A LoRA matched to a model: each entry of the file becomes the LowRank of one layer, or is named as skipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LoraFileError, ModelMismatchError
from ..model.layout import UNetLayout
from .keys import text_layer, unet_layer
from .low_rank import LowRank
from .parallel_layers import map_layers
from .read import Entry, LoraFile

LARGEST_NORM = 1e12
"""Most that ‖up‖, ‖down‖ and their product may be. A healthy layer has less than 1000; far above, float32 overflows in
the squares of losses and decompositions, where no message could name the layer any more."""


@dataclass(frozen=True)
class PlacedLora:
    """What one LoRA does to one model, scale and strength folded in, in float32.

    Attributes:
        file: where it came from
        strength: already folded into everything below
        layers: {canonical layer: LowRank}
        offsets: {(canonical layer, "weight" | "bias"): (channels,)}
        text: {kohya name of a text-encoder layer: LowRank}
        skipped: {key or layer: reason}
    """

    file: LoraFile
    strength: float
    layers: Mapping[str, LowRank]
    offsets: Mapping[tuple[str, str], Tensor]
    text: Mapping[str, LowRank]
    skipped: Mapping[str, str]


def match_to_model(file: LoraFile, layout: UNetLayout, strength: float = 1.0) -> PlacedLora:
    """Matches a LoRA with a UNet and folds alpha / rank and `strength` into it.

    Raises:
        LoraFileError: two keys of the file mean the same layer, or a layer's numbers are absurd.
        ModelMismatchError: a layer's shapes are not the model's, or no layer at all is the model's.
    """
    unet: dict[str, tuple[str, Entry]] = {}
    encoders: dict[str, tuple[str, Entry]] = {}
    skipped = dict(file.skipped)
    for spelled, entry in file.entries.items():
        name = unet_layer(spelled, layout)
        if name is not None:
            _once(name, unet, spelled, file)
            unet[name] = spelled, entry
            continue
        name = text_layer(spelled)
        if name is not None:
            _once(name, encoders, spelled, file)
            encoders[name] = spelled, entry
        else:
            skipped[spelled] = "the model has no such layer"
    if not unet:
        raise ModelMismatchError(
            f"{file.name}: none of its {len(file.entries)} layers is in this model (first: "
            f"{next(iter(file.entries))}). "
            "Check that the LoRA and the checkpoint are of the same family."
        )
    layers = map_layers(lambda name, at: _unet_low_rank(*at, layout.layers[name].shape, strength, file), unet)
    text = map_layers(lambda _, at: _text_low_rank(*at, strength, file), encoders)
    offsets: dict[tuple[str, str], Tensor] = {}
    for (spelled, what), offset in file.offsets.items():
        name = unet_layer(spelled, layout)
        if name is None:
            skipped[f"{spelled} ({what} offset)"] = "the model has no such layer"
            continue
        shape = layout.layers[name].shape
        expected = shape if what == "weight" else shape[:1]  # a 1-D weight change fits a norm layer only
        if offset.shape != expected:
            raise ModelMismatchError(
                f"{file.name}: the {what} offset of {spelled} has shape {tuple(offset.shape)}, the model's {what} of "
                f"{name} has shape {expected}. Use the checkpoint family that the LoRA was trained on."
            )
        offsets[name, what] = offset.to(torch.float32) * strength
        _refuse_absurd(f"the {what} offset of {spelled}", offsets[name, what], file)
    return PlacedLora(file, strength, layers, offsets, text, skipped)


def _unet_low_rank(spelled: str, entry: Entry, shape: tuple[int, ...], strength: float, file: LoraFile) -> LowRank:
    outputs, inputs = entry.up.shape[0], math.prod(entry.down.shape[1:])
    if entry.mid is not None:
        inputs *= math.prod(entry.mid.shape[2:])
    # Before anything is computed: a Tucker core multiplied out is as large as the shapes in the file say.
    if len(shape) < 2 or (outputs, inputs) != (shape[0], math.prod(shape[1:])):
        raise ModelMismatchError(
            f"{file.name}: layer {spelled} changes a weight of {outputs} x {inputs} "
            f"(up {tuple(entry.up.shape)}, down {tuple(entry.down.shape)}), but the model's weight there has shape "
            f"{shape}. The LoRA was made for another model; choose one for this checkpoint's family."
        )
    if entry.mid is not None and entry.mid.shape[0] > outputs:
        raise LoraFileError(
            f"{file.name}: layer {spelled} has a core of rank {entry.mid.shape[0]} (mid {tuple(entry.mid.shape)}) for "
            f"only {outputs} outputs. The file is damaged."
        )
    return _flat(spelled, entry, strength, file)


def _text_low_rank(spelled: str, entry: Entry, strength: float, file: LoraFile) -> LowRank:
    if entry.mid is not None:
        raise LoraFileError(
            f"{file.name}: layer {spelled} has the core of a convolution (mid {tuple(entry.mid.shape)}), but text "
            "encoders have none. The file is damaged."
        )
    return _flat(spelled, entry, strength, file)


def _flat(spelled: str, entry: Entry, strength: float, file: LoraFile) -> LowRank:
    """The entry as two matrices in float32, a Tucker core, alpha / rank and `strength` multiplied in."""
    up, down = (t.detach().to("cpu", torch.float32, copy=True) for t in (entry.up, entry.down))
    if entry.mid is not None:
        mid = entry.mid.detach().to("cpu", torch.float32)
        down = torch.einsum("rskl,si->rikl", mid, down.flatten(1))  # (rank, in, kh, kw)
    scale = 1.0 if entry.alpha is None else entry.alpha / entry.rank
    low_rank = LowRank(up.flatten(1), down.flatten(1).mul_(scale * strength))
    scaled = "" if entry.alpha is None else f", alpha {entry.alpha:g}"
    _refuse_absurd(f"layer {spelled} (strength {strength:g}{scaled})", low_rank.up, file, low_rank.down)
    return low_rank.balanced()


def _refuse_absurd(what: str, one: Tensor, file: LoraFile, other: Tensor | None = None) -> None:
    norms = [float(tensor.norm()) for tensor in (one, other) if tensor is not None]
    if not max(*norms, math.prod(norms)) <= LARGEST_NORM:  # not (NaN <= …)
        raise LoraFileError(
            f"{file.name}: {what} changes the model by up to {math.prod(norms):.1g}, thousands of millions of times "
            "its weights. The LoRA is broken, or its alpha or strength is; use an earlier save of it."
        )


def _once(name: str, taken: Mapping[str, object], spelled: str, file: LoraFile) -> None:
    if name in taken:
        raise LoraFileError(
            f"{file.name}: layer {name} is there twice, the second time as {spelled}. The file is damaged."
        )
