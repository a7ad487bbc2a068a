"""A file read and placed by us, beside what it must change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duolora_core import match_to_model, read_lora
from duolora_core.lora.keys import text_layer, unet_layer
from wild_loras.sample import Sample

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Verdict:
    """What came of one file.

    Attributes:
        worst: relative error of a layer's exact change or 1-D offset
        lost: share of the energy that the plain LoRA leaves out, measured on the expected changes
        fault: what is wrong beside a large error
    """

    worst: float
    lost: float
    fault: str = ""


def judged(sample: Sample, rank_limit: int = 64) -> Verdict:
    file = read_lora(sample.path)
    placed = match_to_model(file, sample.family.layout, weight=sample.family.weight, rank_limit=rank_limit)
    changes: dict[str, Tensor] = {}
    for spelled, adapter in file.entries.items():
        name = unet_layer(spelled, sample.family.layout) or text_layer(spelled) or spelled
        weight = sample.family.weights[name]
        changes[name] = adapter.delta(weight.shape, weight)
    if changes.keys() != sample.changes.keys():
        return Verdict(1.0, 1.0, f"layers differ: {sorted(changes.keys() ^ sample.changes.keys())}")
    offsets = {**placed.offsets, **placed.text_offsets}
    if offsets.keys() != sample.offsets.keys():
        return Verdict(1.0, 1.0, f"offsets differ: {sorted(offsets.keys() ^ sample.offsets.keys())}")
    errors = [relative(changes[name], expected) for name, expected in sample.changes.items()]
    errors += [relative(offsets[key], expected) for key, expected in sample.offsets.items()]
    whole = lost = 0.0
    fault = ""
    for name, expected in sample.changes.items():
        low_rank = (placed.layers if name in placed.layers else placed.text)[name]
        flat = expected.double().flatten(1)
        left_out, energy = float((flat - low_rank.delta().double()).norm() ** 2), float(flat.norm() ** 2)
        said = placed.approximations[name].lost if name in placed.approximations else 0.0
        if abs(said - left_out / energy) > 2e-3:
            fault = f"{name}: {left_out / energy:.4f} of the energy is lost, said were {said:.4f}"
        whole, lost = whole + energy, lost + left_out
    return Verdict(max(errors), lost / whole if whole else 0.0, fault)


def relative(found: Tensor, expected: Tensor) -> float:
    difference = float((found.double() - expected.double()).norm())
    return difference / max(float(expected.double().norm()), torch.finfo(torch.float32).tiny)
