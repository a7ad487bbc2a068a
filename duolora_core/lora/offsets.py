"""The 1-D changes of a LoRA, of norms and biases, matched to a model's layers; and which numbers are absurd."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import LoraFileError, ModelMismatchError
from ..model.layout import UNetLayout
from .adapters import Adapter, Ia3
from .keys import text_layer, unet_layer
from .read import LoraFile

LARGEST_NORM = 1e12
"""Most that ‖up‖, ‖down‖ and their product may be. A healthy layer has less than 1000; far above, float32 overflows in
the squares of losses and decompositions, where no message could name the layer any more."""


def matched_offsets(
    file: LoraFile, layout: UNetLayout, strength: float, text_strength: float, skipped: dict[str, str]
) -> tuple[dict[tuple[str, str], Tensor], dict[tuple[str, str], Tensor]]:
    """The 1-D changes of the UNet and of the text encoders; what is neither's is named in `skipped`."""
    offsets: dict[tuple[str, str], Tensor] = {}
    text_offsets: dict[tuple[str, str], Tensor] = {}
    for (spelled, what), offset in file.offsets.items():
        name = unet_layer(spelled, layout)
        scaled = offset.to(torch.float32) * (text_strength if name is None else strength)
        refuse_absurd(f"the {what} offset of {spelled}", scaled, file)
        if name is not None:
            shape = layout.layers[name].shape
            expected = shape if what == "weight" else shape[:1]  # a 1-D weight change fits a norm layer only
            if offset.shape != expected:
                raise ModelMismatchError(
                    f"{file.name}: the {what} offset of {spelled} has shape {tuple(offset.shape)}, the model's {what} "
                    f"of {name} has shape {expected}. Use the checkpoint family that the LoRA was trained on."
                )
            offsets[name, what] = scaled
            continue
        name = text_layer(spelled)
        if name is not None:
            text_offsets[name, what] = scaled
        else:
            skipped[f"{spelled} ({what} offset)"] = "the model has no such layer"
    return offsets, text_offsets


def scale_biases(
    entries: Mapping[str, tuple[str, Adapter]],
    offsets: dict[tuple[str, str], Tensor],
    strength: float,
    weight: Callable[[str], Tensor | None] | None,
) -> None:
    """Adds what an (IA)³ of outputs does to a layer's bias: bias · (scales − 1)."""
    for name, (_, entry) in entries.items():
        if isinstance(entry, Ia3) and entry.of_bias and weight is not None:
            bias = weight(f"{name}.bias")
            if bias is not None:
                change = bias * entry.scales.flatten().to(bias) * strength
                offsets[name, "bias"] = offsets[name, "bias"] + change if (name, "bias") in offsets else change


def refuse_absurd(what: str, one: Tensor, file: LoraFile, other: Tensor | None = None) -> None:
    """Refuses numbers that no healthy LoRA has.

    Raises:
        LoraFileError: a norm, or the product of both, is above `LARGEST_NORM` or no number.
    """
    norms = [float(tensor.norm()) for tensor in (one, other) if tensor is not None]
    if not max(*norms, math.prod(norms)) <= LARGEST_NORM:  # not (NaN <= …)
        raise LoraFileError(
            f"{file.name}: {what} changes the model by up to {math.prod(norms):.1g}, thousands of millions of times "
            "its weights. The LoRA is broken, or its alpha or strength is; use an earlier save of it."
        )
