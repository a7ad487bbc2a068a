"""Baseline Merge: the same LoRAs merged by somebody else's method, to compare with."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..duolora_core import LoraStack
from ..duolora_core.baselines.zip_lora import ZipLoraConfig
from ..duolora_core.lora.save import kohya_state_dict
from .host.models import apply_lora
from .run.baseline import (
    ANY_NUMBER,
    ROUTER,
    STACK,
    TRAINING_FREE,
    ZIP_LORA,
    MethodSettings,
    merge_any_number,
    run_zip_lora,
)
from .run.inputs import Inputs
from .run.loaded_lora import LoadedLora
from .run.options import MergeOptions
from .run.placed import coverage_notes, lora_note, placed_pair, placed_stack
from .run.progress import TrainingLog, loss_map
from .ui.schema import schema
from .ui.sockets import CATEGORY, ConceptSocket, LoraModelSocket, LossMapSocket, OptionsSocket
from .ui.widgets import resolution_input, seed_input, steps_input, strength_input


class BaselineMerge(io.ComfyNode):
    """Merges by a method of others, applies the result, and hands it out as an ordinary LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BaselineMerge",
            display_name="Baseline Merge",
            category=CATEGORY,
            description="Merges the same LoRAs by another method, to compare DuoLoRA with in one graph. Only "
            "ZipLoRA is trained. K-LoRA is not offered: it chooses between the two LoRAs anew as the sampling goes on, "
            "so that no single LoRA can hold it.",
            search_aliases=[
                "duolora",
                "compare merge",
                "ziplora",
                "b-lora",
                "k-lora",
                "np-lora",
                "ties",
                "dare",
                "stack lora",
                "average lora",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL-family checkpoint that you will generate with."),
                ConceptSocket.Input("content", tooltip="From Load Content LoRA: the subject."),
                ConceptSocket.Input("style", tooltip="From Load Style LoRA."),
                io.Combo.Input(
                    "method",
                    options=[*TRAINING_FREE, *ZIP_LORA, ROUTER],
                    default=STACK,
                    tooltip="stack: both LoRAs added, as with two LoRA loaders. average: half of each. B-LoRA block "
                    "split: each only in the block that B-LoRA gives it, though trained as usual. NP-LoRA null space: "
                    "the subject gives way where the style acts. TIES (in core space): the strongest changes stay, and "
                    "contradicting ones are settled. DARE (in core space): a random half of all changes, doubled. "
                    "ZipLoRA: a mask per output channel, or per input channel, is trained; connect clip. SSR-Merge "
                    "router: each LoRA is kept to what it meets on its own pictures; connect clip. Only stack, average "
                    "and the router take more than two LoRAs.",
                ),
                strength_input("content_strength", _strength_tooltip("subject")),
                strength_input("style_strength", _strength_tooltip("style")),
                seed_input(
                    "For DARE and ZipLoRA. With the seed, resolution and options of a ZipRank Merge, ZipLoRA trains on "
                    "its pictures."
                ),
                steps_input(
                    ZipLoraConfig().steps,
                    "Training steps of ZipLoRA; 100 as in its paper. Not used by the other methods.",
                ),
                resolution_input(
                    "Training size of ZipLoRA in pixels (the side of a square of equal area). Not used by the other "
                    "methods."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP. ZipLoRA needs it; connect it too if the LoRAs have text encoder "
                    "parts, which every method adds up.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Needed only by ZipLoRA, and only when a loader has pictures."
                ),
                OptionsSocket.Input(
                    "options",
                    optional=True,
                    tooltip="From Merge Options. ZipLoRA takes its learning rate, memory settings and own pictures "
                    "from it; the other methods need none.",
                ),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="The checkpoint with the merge applied."),
                io.Clip.Output("clip_out", display_name="clip", tooltip="CLIP with the text encoder parts applied."),
                LoraModelSocket.Output("lora", tooltip="The merge as an ordinary LoRA, for core's Save LoRA Weights."),
                LossMapSocket.Output(
                    "loss", tooltip="For core's Plot Loss Graph, which runs only after a training, thus with ZipLoRA."
                ),
                io.String.Output("info", tooltip="What was used, what was skipped and why."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        content: LoadedLora,
        style: LoadedLora,
        method: str,
        content_strength: float,
        style_strength: float,
        seed: int,
        steps: int,
        resolution: int,
        clip: Any = None,
        vae: Any = None,
        options: MergeOptions | None = None,
    ) -> io.NodeOutput:
        options = options or MergeOptions()
        inputs = Inputs(model, clip, vae, resolution, options.run)
        settings = MethodSettings(content_strength, style_strength, seed)
        log = None
        if method == ROUTER or (method in ANY_NUMBER and (content.others or style.others)):
            placed = placed_stack(model, clip, content, style)
            folded = merge_any_number(inputs, content, style, placed, method, settings)
        elif method in ZIP_LORA:
            placed = pair = placed_pair(model, clip, content, style, method)
            rate, micro_batch = options.config.learning_rate, options.config.micro_batch
            config = ZipLoraConfig(steps=steps, learning_rate=rate, micro_batch=micro_batch, seed=seed)
            folded, log = run_zip_lora(inputs, content, style, pair, ZIP_LORA[method], config)
        else:
            placed = pair = placed_pair(model, clip, content, style, method)
            folded = TRAINING_FREE[method](pair, settings)
        lora = kohya_state_dict(folded)
        info = _notes(placed, method, log, text_left_out=bool(folded.text) and clip is None)
        return io.NodeOutput(*apply_lora(model, clip, lora), lora, loss_map(log.losses if log else {}), "\n".join(info))


def _strength_tooltip(shown: str) -> str:
    return f"Only for {STACK}: how strongly the {shown} shows. All methods follow the strengths of the loaders."


def _notes(placed: LoraStack, method: str, log: TrainingLog | None, text_left_out: bool) -> list[str]:
    how, *more = log.log_lines if log else ["no training"]
    lines = [f"{method}, {how}", *more]
    lines += [lora_note(label, lora) for label, lora in zip(placed.labels, placed.loras, strict=True)]
    if text_left_out:
        lines.append(
            "The text encoder parts are in the lora output but not applied here, because clip is not connected."
        )
    return lines + coverage_notes(placed)
