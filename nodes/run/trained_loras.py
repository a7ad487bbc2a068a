"""What a training from pictures gives: LoRAs for the merge, ordinary LoRAs, and both as one adjustable whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...duolora_core import LoraFile, kohya_state_dict, lora_from_tensors
from ...duolora_core.lora.folded import FoldedLora
from ...duolora_core.lora.metadata import VERSION
from ...duolora_core.merge.merged import joined
from ...duolora_core.train_lora import Example, LoraConfig, TrainableLora, TrainConfig, UnzipConfig
from ...duolora_core.train_lora.trainable_lora import Side
from ..host.denoiser import prediction_of
from .examples import sizes_of
from .inputs import Inputs
from .loaded_lora import LoadedLora
from .merge_result import MergeResult
from .progress import TrainingLog

SIDES: tuple[Side, Side] = ("content", "style")


@dataclass(frozen=True)
class TrainingSource:
    """What LoRAs were trained on.

    Attributes:
        prompt: with which everything that was trained shows
        per_lora_prompts: {role: prompt with which that LoRA alone paints}
        pictures: IMAGE batches that show what each LoRA paints, if there are any
    """

    inputs: Inputs
    method: str
    prompt: str
    per_lora_prompts: Mapping[Side, str]
    pictures: Sequence[Tensor] | None
    examples: Sequence[Example]
    class_examples: Sequence[Example]
    form: LoraConfig
    config: TrainConfig | UnzipConfig


@dataclass(frozen=True)
class TrainedLoras:
    """A finished training from pictures. A role that was not trained is missing in both tables.

    Attributes:
        loras: {role: an ordinary LoRA, as a state dict in fp16}
        merged: the LoRAs together, with a strength for each
    """

    concepts: Mapping[Side, LoadedLora]
    loras: Mapping[Side, Mapping[str, Tensor]]
    merged: MergeResult


def trained_loras(loras: Mapping[Side, TrainableLora], log: TrainingLog, source: TrainingSource) -> TrainedLoras:
    """What a training has reached, folded into ordinary LoRAs."""
    folded: dict[Side, FoldedLora] = {role: lora.fold() for role, lora in loras.items()}
    states: dict[Side, Mapping[str, Tensor]] = {role: kohya_state_dict(each) for role, each in folded.items()}
    files: dict[Side, LoraFile] = {
        role: lora_from_tensors(state, f"{role} by {source.method}") for role, state in states.items()
    }
    merged = joined(folded.get("content"), folded.get("style"), _recipe(folded, log, source))
    return TrainedLoras(
        concepts={
            role: LoadedLora(role, file, source.per_lora_prompts[role], 1.0, source.pictures, source.inputs.vae)
            for role, file in files.items()
        },
        loras=states,
        merged=MergeResult(
            merged=merged,
            trigger_phrase=source.prompt,
            prediction=prediction_of(source.inputs.model.get_model_object("model_sampling")),
            sources=[file.name for file in files.values()],
            notes=_notes(loras, log, source),
            losses=log.losses,
        ),
    )


def _recipe(folded: Mapping[Side, FoldedLora], log: TrainingLog, source: TrainingSource) -> dict[str, Any]:
    """What it takes to train them again, as plain JSON data."""
    ended = {"ended_after": log.done} if log.ended else {}
    return {
        "trained": source.method,
        "inputs": {
            role: {"prompt": source.per_lora_prompts[role], "pictures": len(source.examples)} for role in folded
        },
        "prompt": source.prompt,
        "class_pictures": len(source.class_examples),
        "model": type(source.inputs.model.model).__name__,
        "resolution": source.inputs.resolution,
        "form": asdict(source.form),
        "config": asdict(source.config),
        **ended,
        "versions": {"duolora": VERSION, "torch": torch.__version__},
    }


def _notes(loras: Mapping[Side, TrainableLora], log: TrainingLog, source: TrainingSource) -> list[str]:
    """How it went, in plain words."""
    sizes = [f"{width * 8} x {height * 8}" for height, width in sizes_of(source.examples)]
    count = len(source.examples)
    how, *more = log.log_lines
    lines = [
        f"{source.method}: {how}",
        *more,
        f"{count} picture{'s' if count > 1 else ''}, trained at {', '.join(sizes)} pixels",
    ]
    if source.class_examples:
        lines.append(f"prior preservation with {len(source.class_examples)} class pictures")
    for role, lora in loras.items():
        lines.append(f"{role}: rank {lora.rank} in {len(lora.up)} layers; prompt: {source.per_lora_prompts[role]}")
        if lora.masks:
            opened = sum(float(mask.sum()) for mask in lora.masks.values()) / sum(map(len, lora.masks.values()))
            lines.append(f"{role}: {opened:.0%} of all columns opened")
    curve = log.losses.get("pictures", [])
    part = max(1, len(curve) // 10)
    if len(curve) > 1:
        first, last = sum(curve[:part]) / part, sum(curve[-part:]) / part
        lines.append(f"loss on the pictures: {first:.4f} at first, {last:.4f} at last (means of {part} steps)")
    return lines
