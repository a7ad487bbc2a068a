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
from .ui.sockets import ConceptSocket, LoraModelSocket, LossMapSocket, OptionsSocket
from .ui.widgets import resolution_input, seed_input, steps_input, strength_input


class BaselineMerge(io.ComfyNode):
    """Merges by a method of others, applies the result, and hands it out as an ordinary LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BaselineMerge",
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
                io.Model.Input("model"),
                ConceptSocket.Input("content"),
                ConceptSocket.Input("style"),
                io.Combo.Input("method", options=[*TRAINING_FREE, *ZIP_LORA, ROUTER], default=STACK),
                strength_input("content_strength"),
                strength_input("style_strength"),
                seed_input(),
                steps_input(ZipLoraConfig().steps),
                resolution_input(),
                io.Clip.Input("clip", optional=True),
                io.Vae.Input("vae", optional=True),
                OptionsSocket.Input("options", optional=True),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model"),
                io.Clip.Output("clip_out", display_name="clip"),
                LoraModelSocket.Output("lora"),
                LossMapSocket.Output("loss"),
                io.String.Output("info"),
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


def _notes(placed: LoraStack, method: str, log: TrainingLog | None, text_left_out: bool) -> list[str]:
    how, *more = log.log_lines if log else ["no training"]
    lines = [f"{method}, {how}", *more]
    lines += [lora_note(label, lora) for label, lora in zip(placed.labels, placed.loras, strict=True)]
    if text_left_out:
        lines.append(
            "The text encoder parts are in the lora output but not applied here, because clip is not connected."
        )
    return lines + coverage_notes(placed)
