"""A LoRA matched to a model: each entry of the file becomes the LowRank of one layer, or is named as skipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import LoraFileError, ModelMismatchError
from ..model.layout import UNetLayout
from ..model.memory.out_of_memory import is_out_of_memory
from .adapters import CPU, Adapter, PlainLora, nearest_on
from .keys import text_layer, unet_layer
from .low_rank import LowRank
from .offsets import matched_offsets, refuse_absurd, scale_biases
from .parallel_layers import map_in_turn, map_layers
from .read import LoraFile

RANK_LIMIT = 64
"""The rank that an adapter which is not low-rank by itself gets, at most, where nobody asks for another."""

BaseWeight = Callable[[str], Tensor | None]
"""The checkpoint's own weight, (out, in) or (out, in, kh, kw), of a canonical UNet layer or of a text-encoder layer as
`text_layer` names it, and under `<layer>.bias` its bias; None where the model at hand has no such layer or bias."""


@dataclass(frozen=True)
class Approximation:
    """What became of an adapter that is not low-rank by itself.

    Attributes:
        kind: of the adapter
        rank: that it got
        lost: share of its energy ‖ΔW‖² that is left out
        energy: ‖ΔW‖²
        by_cpu: why the CPU found it instead of the device that was asked for
    """

    kind: str
    rank: int
    lost: float
    energy: float
    by_cpu: str = ""


@dataclass(frozen=True)
class PlacedLora:
    """What one LoRA does to one model, scale and strength folded in, in float32.

    Attributes:
        file: where it came from
        strength: already folded into everything below; the text encoders' part may have had another
        layers: {canonical layer: LowRank}
        offsets: {(canonical layer, "weight" | "bias"): (channels,)}
        text: {name of a text-encoder layer, see `text_layer`: LowRank}
        skipped: {key or layer: reason}
        text_offsets: {(name of a text-encoder layer, "weight" | "bias"): (channels,)}
        approximations: {layer or name: Approximation}
    """

    file: LoraFile
    strength: float
    layers: Mapping[str, LowRank]
    offsets: Mapping[tuple[str, str], Tensor]
    text: Mapping[str, LowRank]
    skipped: Mapping[str, str]
    text_offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    approximations: Mapping[str, Approximation] = field(default_factory=dict[str, Approximation])

    @property
    def lost(self) -> float:
        """Share of the energy of all approximated layers together that is left out."""
        energy = sum(each.energy for each in self.approximations.values())
        return sum(each.lost * each.energy for each in self.approximations.values()) / energy if energy else 0.0


@dataclass(frozen=True)
class _Placed:
    low_rank: LowRank
    approximation: Approximation | None


def match_to_model(
    file: LoraFile,
    layout: UNetLayout,
    strength: float = 1.0,
    weight: BaseWeight | None = None,
    rank_limit: int = RANK_LIMIT,
    text_strength: float | None = None,
    device: torch.device = CPU,
) -> PlacedLora:
    """Matches a LoRA with a UNet and folds alpha / rank and `strength` into it.

    Adapters that are not low-rank by themselves become the nearest LowRank of at most `rank_limit`, or of the smaller
    rank that keeps 99 % of their energy.

    Args:
        weight: for adapters whose change depends on the checkpoint (DoRA, OFT, …)
        text_strength: of the text encoders' part; None: the same `strength`
        device: where such adapters are decomposed, layer by layer; the result lies on the CPU

    Raises:
        LoraFileError: two keys of the file mean the same layer, a layer's numbers are absurd, or an adapter needs a
            checkpoint's weights and has none.
        ModelMismatchError: a layer's shapes are not the model's, or no layer at all is the model's.
    """
    of_text = strength if text_strength is None else text_strength
    unet: dict[str, tuple[str, Adapter]] = {}
    encoders: dict[str, tuple[str, Adapter]] = {}
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
        raise _nothing_in_common(file, len(encoders))

    def in_unet(name: str, at: tuple[str, Adapter]) -> _Placed:
        spelled, entry = at
        shape = layout.layers[name].shape
        if isinstance(entry, PlainLora):
            _require_shape(spelled, entry, shape, file)
        elif len(shape) < 2:
            raise ModelMismatchError(
                f"{file.name}: layer {spelled} holds a {entry.kind} for a weight matrix, but the model's weight there "
                f"has shape {shape}. Use the checkpoint family that the LoRA was trained on."
            )
        if isinstance(entry, PlainLora):
            return _Placed(_flat(spelled, entry, strength, file), None)
        return _approximated(name, spelled, entry, shape, strength, file, weight, rank_limit, device)

    def in_text(name: str, at: tuple[str, Adapter]) -> _Placed:
        spelled, entry = at
        if isinstance(entry, PlainLora) and entry.mid is not None:
            raise LoraFileError(
                f"{file.name}: layer {spelled} has the core of a convolution (mid {tuple(entry.mid.shape)}), but text "
                "encoders have none. The file is damaged."
            )
        if isinstance(entry, PlainLora):
            return _Placed(_flat(spelled, entry, of_text, file), None)
        return _approximated(name, spelled, entry, None, of_text, file, weight, rank_limit, device)

    each = map_layers if device.type == "cpu" else map_in_turn
    layers, text = each(in_unet, unet), each(in_text, encoders)
    offsets, text_offsets = matched_offsets(file, layout, strength, of_text, skipped)
    for found, into, factor in ((unet, offsets, strength), (encoders, text_offsets, of_text)):
        scale_biases(found, into, factor, weight)
    placed = {**layers, **text}
    return PlacedLora(
        file,
        strength,
        {name: each.low_rank for name, each in layers.items()},
        offsets,
        {name: each.low_rank for name, each in text.items()},
        skipped,
        text_offsets,
        {name: each.approximation for name, each in placed.items() if each.approximation is not None},
    )


def _nothing_in_common(file: LoraFile, text_layers: int) -> ModelMismatchError:
    if text_layers == len(file.entries):
        return ModelMismatchError(
            f"{file.name} changes only the text encoders ({text_layers} layers), and a merge is trained on the UNet. "
            "Load it with ComfyUI's Load LoRA beside the merge."
        )
    return ModelMismatchError(
        f"{file.name}: none of its {len(file.entries)} layers is in this model (first: {next(iter(file.entries))}). "
        "It was made for an architecture that DuoLoRA does not know, or for another family than the checkpoint's: "
        "choose a LoRA for SDXL, Pony, Illustrious, NoobAI, SSD-1B or Segmind-Vega."
    )


def _require_shape(spelled: str, entry: PlainLora, shape: tuple[int, ...], file: LoraFile) -> None:
    """Before anything is computed: a Tucker core multiplied out is as large as the shapes in the file say."""
    outputs, inputs = entry.size
    if len(shape) < 2 or (outputs, inputs) != (shape[0], math.prod(shape[1:])):
        raise ModelMismatchError(
            f"{file.name}: layer {spelled} changes a weight of {outputs} x {inputs} "
            f"(up {tuple(entry.up.shape)}, down {tuple(entry.down.shape)}), but the model's weight there has shape "
            f"{shape}. The LoRA was made for another model; choose one for this checkpoint's family."
        )
    if entry.mid is not None and entry.mid.shape[0] > max(outputs, math.prod(shape[1:])):
        raise LoraFileError(
            f"{file.name}: layer {spelled} has a core of rank {entry.mid.shape[0]} (mid {tuple(entry.mid.shape)}) for "
            f"a weight of only {outputs} x {math.prod(shape[1:])}. The file is damaged."
        )


def _flat(spelled: str, entry: PlainLora, strength: float, file: LoraFile) -> LowRank:
    """The entry as two matrices in float32, a Tucker core, alpha / rank and `strength` multiplied in."""
    up, down = (each.cpu() for each in entry.factors())
    low_rank = LowRank(up, down.mul_(entry.scale * strength))
    scaled = "" if entry.alpha is None else f", alpha {entry.alpha:g}"
    refuse_absurd(f"layer {spelled} (strength {strength:g}{scaled})", low_rank.up, file, low_rank.down)
    return low_rank.balanced()


def _approximated(
    name: str,
    spelled: str,
    entry: Adapter,
    shape: tuple[int, ...] | None,
    strength: float,
    file: LoraFile,
    weight: BaseWeight | None,
    rank_limit: int,
    device: torch.device,
) -> _Placed:
    """An adapter that is not low-rank by itself; `shape` is None for a text encoder's, whose weight tells."""
    base = weight(name) if weight is not None and (shape is None or entry.needs_weight) else None
    if shape is None and base is not None:
        shape = tuple(base.shape)
    if shape is None or (entry.needs_weight and base is None):
        raise ModelMismatchError(
            f"{file.name}: layer {spelled} holds a {entry.kind}, whose change cannot be laid out without the model's "
            "own weight, and the model at hand has none there. Connect the MODEL and CLIP of an SDXL checkpoint."
        )
    try:
        found = nearest_on(device, entry, shape, base, rank_limit)
    except (ValueError, RuntimeError) as error:  # RuntimeError: how PyTorch says that two shapes do not fit
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise ModelMismatchError(
            f"{file.name}: the {entry.kind} of layer {spelled} does not fit the model's weight of shape {shape} there: "
            f"{error}. Use the checkpoint family that it was trained on."
        ) from error
    scaled = found.low_rank.scaled(strength)
    if scaled.rank:
        refuse_absurd(f"layer {spelled} (strength {strength:g})", scaled.up, file, scaled.down)
    energy = scaled.norm() ** 2 / max(1.0 - found.lost, 1e-9)
    return _Placed(scaled.balanced(), Approximation(entry.kind, scaled.rank, found.lost, energy, found.by_cpu))


def _once(name: str, taken: Mapping[str, object], spelled: str, file: LoraFile) -> None:
    if name in taken:
        raise LoraFileError(
            f"{file.name}: layer {name} is there twice, the second time as {spelled}. The file is damaged."
        )
