"""What a training from pictures hands out: concepts for the merge, ordinary LoRAs, and both as one adjustable whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..duolora_core import LoraFile, kohya_state_dict, lora_from_tensors
from ..duolora_core.from_pictures import Example, LearnConfig, LoraForm, LoraInTraining, UnzipConfig
from ..duolora_core.from_pictures.lora_in_training import Side
from ..duolora_core.lora_save import VERSION
from ..duolora_core.merged import FoldedLora, joined
from .classroom import Classroom, sizes_of
from .host.denoiser import prediction_of
from .host.outputs import withheld
from .sockets import ConceptSocket, LoadedConcept, LoraModelSocket, LossMapSocket, MergedSocket, MergeResult
from .training import History, loss_map

SIDES: tuple[Side, Side] = ("content", "style")


@dataclass(frozen=True)
class LearnedFrom:
    """What LoRAs were learned from.

    Attributes:
        prompt: with which everything that was learned shows
        own_prompts: {role: prompt with which that LoRA alone paints}
        pictures: IMAGE batches that show what each LoRA paints, if there are any
    """

    room: Classroom
    method: str
    prompt: str
    own_prompts: Mapping[Side, str]
    pictures: Sequence[Tensor] | None
    examples: Sequence[Example]
    class_examples: Sequence[Example]
    form: LoraForm
    config: LearnConfig | UnzipConfig


@dataclass(frozen=True)
class Learned:
    """A finished training from pictures. A role that was not trained is missing in both tables.

    Attributes:
        loras: {role: an ordinary LoRA, as a state dict in fp16}
        merged: the LoRAs together, with a strength for each
    """

    concepts: Mapping[Side, LoadedConcept]
    loras: Mapping[Side, Mapping[str, Tensor]]
    merged: MergeResult


def learned(loras: Mapping[Side, LoraInTraining], history: History, source: LearnedFrom) -> Learned:
    """What a training has reached, folded into ordinary LoRAs."""
    with torch.inference_mode(False):
        folded: dict[Side, FoldedLora] = {role: lora.fold() for role, lora in loras.items()}
        states: dict[Side, Mapping[str, Tensor]] = {role: kohya_state_dict(each) for role, each in folded.items()}
        files: dict[Side, LoraFile] = {
            role: lora_from_tensors(state, f"{role} by {source.method}") for role, state in states.items()
        }
        merged = joined(folded.get("content"), folded.get("style"), _recipe(folded, history, source))
    return Learned(
        concepts={
            role: LoadedConcept(role, file, source.own_prompts[role], 1.0, source.pictures, source.room.vae)
            for role, file in files.items()
        },
        loras=states,
        merged=MergeResult(
            merged=merged,
            trigger_phrase=source.prompt,
            prediction=prediction_of(source.room.model.get_model_object("model_sampling")),
            sources=[file.name for file in files.values()],
            notes=_notes(loras, history, source),
            losses=history.losses,
        ),
    )


def learned_outputs() -> list[io.Output]:
    """The outputs of both trainers."""
    return [
        *(
            ConceptSocket.Output(role, tooltip=f"The {role} LoRA, to the {role} input of ZipRank Merge.")
            for role in SIDES
        ),
        *(
            LoraModelSocket.Output(f"{role}_lora", tooltip=f"The same {role} LoRA by itself, for core nodes.")
            for role in SIDES
        ),
        MergedSocket.Output(
            "merged",
            tooltip="All that was trained, to Apply Merged LoRA and Save Merged LoRA, with a strength for each.",
        ),
        LossMapSocket.Output("loss", tooltip="For core's Plot Loss Graph."),
        io.String.Output("info", tooltip="What was trained on what, in which time and memory, and how it ended."),
    ]


def handed_out(result: Learned) -> io.NodeOutput:
    """The values of `learned_outputs`; nodes connected to a role that was not trained are told so."""

    def each(table: Mapping[Side, Any], role: Side) -> Any:
        trained = ", ".join(table)
        return (
            table[role]
            if role in table
            else withheld(
                f"This node trained {trained} only, so its {role} outputs are empty. Change its role, or connect the "
                f"{trained} output."
            )
        )

    return io.NodeOutput(
        *(each(result.concepts, role) for role in SIDES),
        *(each(result.loras, role) for role in SIDES),
        result.merged,
        loss_map(result.merged.losses),
        "\n".join(result.merged.notes),
    )


def _recipe(folded: Mapping[Side, FoldedLora], history: History, source: LearnedFrom) -> dict[str, Any]:
    """What it takes to train them again, as plain JSON data."""
    ended = {"ended_after": history.done} if history.ended else {}
    return {
        "trained": source.method,
        "inputs": {role: {"prompt": source.own_prompts[role], "pictures": len(source.examples)} for role in folded},
        "prompt": source.prompt,
        "class_pictures": len(source.class_examples),
        "model": type(source.room.model.model).__name__,
        "resolution": source.room.resolution,
        "form": asdict(source.form),
        "config": asdict(source.config),
        **ended,
        "versions": {"duolora": VERSION, "torch": torch.__version__},
    }


def _notes(loras: Mapping[Side, LoraInTraining], history: History, source: LearnedFrom) -> list[str]:
    """How it went, in plain words."""
    sizes = [f"{width * 8} x {height * 8}" for height, width in sizes_of(source.examples)]
    count = len(source.examples)
    how, *told = history.told
    lines = [
        f"{source.method}: {how}",
        *told,
        f"{count} picture{'s' if count > 1 else ''}, trained at {', '.join(sizes)} pixels",
    ]
    if source.class_examples:
        lines.append(f"prior preservation with {len(source.class_examples)} class pictures")
    for role, lora in loras.items():
        lines.append(f"{role}: rank {lora.rank} in {len(lora.up)} layers; prompt: {source.own_prompts[role]}")
        if lora.masks:
            opened = sum(float(mask.sum()) for mask in lora.masks.values()) / sum(map(len, lora.masks.values()))
            lines.append(f"{role}: {opened:.0%} of all columns opened")
    curve = history.losses.get("pictures", [])
    part = max(1, len(curve) // 10)
    if len(curve) > 1:
        first, last = sum(curve[:part]) / part, sum(curve[-part:]) / part
        lines.append(f"loss on the pictures: {first:.4f} at first, {last:.4f} at last (means of {part} steps)")
    return lines
