"""Apply Merged LoRA and Multi-Concept Combine: what is done with finished merges inside a graph."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..duolora_core.merge.merged import combine
from .host.models import apply_lora
from .run.merge_result import MergeResult, ordinary_lora
from .ui.schema import schema
from .ui.sockets import MergedSocket
from .ui.widgets import strength_input, strength_inputs

MOST_CONCEPTS = 4


class ApplyMergedLora(io.ComfyNode):
    """Patches MODEL and CLIP with a merge."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ApplyMerged",
            search_aliases=["duolora", "apply lora", "content style strength"],
            inputs=[
                io.Model.Input("model"),
                MergedSocket.Input("merged"),
                *strength_inputs(),
                io.Clip.Input("clip", optional=True),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model"),
                io.Clip.Output("clip_out", display_name="clip"),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, merged: MergeResult, content_strength: float, style_strength: float, clip: Any = None
    ) -> io.NodeOutput:
        if content_strength == style_strength == 1.0:
            return io.NodeOutput(*apply_lora(model, clip, merged.lora))
        lora = ordinary_lora(merged.merged, content_strength, style_strength)
        return io.NodeOutput(*apply_lora(model, clip, lora))


class MultiConceptCombine(io.ComfyNode):
    """Several merges with one style as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        merges = [MergedSocket.Input(f"merged_{i}", optional=i > 2) for i in range(1, MOST_CONCEPTS + 1)]
        weights = [strength_input(f"weight_{i}") for i in range(1, MOST_CONCEPTS + 1)]
        return schema(
            "Combine",
            search_aliases=["duolora", "multi concept", "combine lora"],
            inputs=[
                *merges,
                io.Boolean.Input("average", default=True),
                *weights,
            ],
            outputs=[MergedSocket.Output("merged")],
        )

    @classmethod
    def execute(cls, average: bool, **inputs: Any) -> io.NodeOutput:
        numbers = [i for i in range(1, MOST_CONCEPTS + 1) if inputs.get(f"merged_{i}") is not None]
        results: list[MergeResult] = [inputs[f"merged_{i}"] for i in numbers]
        weights = [inputs[f"weight_{i}"] / (len(numbers) if average else 1) for i in numbers]
        merged = combine([result.merged for result in results], weights)
        return io.NodeOutput(
            MergeResult(
                merged=merged,
                trigger_phrase="; ".join(result.trigger_phrase for result in results),
                prediction=results[0].prediction,
                sources=[name for result in results for name in result.sources],
                notes=[f"{len(results)} merges combined with weights {', '.join(f'{w:.2f}' for w in weights)}"],
            )
        )
