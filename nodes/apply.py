"""Apply Merged LoRA and Multi-Concept Combine: what is done with finished merges inside a graph."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..duolora_core.merge.merged import combine
from .host.models import apply_lora
from .run.merge_result import MergeResult, ordinary_lora
from .ui.schema import schema
from .ui.sockets import CATEGORY, MergedSocket
from .ui.widgets import strength_input, strength_inputs

MOST_CONCEPTS = 4


class ApplyMergedLora(io.ComfyNode):
    """Patches MODEL and CLIP with a merge."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ApplyMerged",
            display_name="Apply Merged LoRA",
            category=CATEGORY,
            description="Uses a merge in this graph. Content and style strength are free here; nothing is "
            "trained again.",
            search_aliases=["duolora", "apply lora", "content style strength"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to generate with."),
                MergedSocket.Input("merged", tooltip="From ZipRank Merge or Multi-Concept Combine."),
                *strength_inputs(),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Connect it if the LoRAs have text encoder parts; they are applied with the same "
                    "strengths.",
                ),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="The checkpoint with the merge applied."),
                io.Clip.Output("clip_out", display_name="clip", tooltip="CLIP with the text encoder parts applied."),
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
        merges = [
            MergedSocket.Input(
                f"merged_{i}", optional=i > 2, tooltip=f"Merge number {i}: one subject in the common style."
            )
            for i in range(1, MOST_CONCEPTS + 1)
        ]
        weights = [
            strength_input(f"weight_{i}", f"How strongly merge number {i} counts.") for i in range(1, MOST_CONCEPTS + 1)
        ]
        return schema(
            "Combine",
            display_name="Multi-Concept Combine",
            category=CATEGORY,
            description="Puts up to four merges into one LoRA, for several subjects in one style. Prompt with "
            "directions: 'a sks dog on the left and a <v> cat on the right, in wtrclr style'.",
            search_aliases=["duolora", "multi concept", "combine lora"],
            inputs=[
                *merges,
                io.Boolean.Input(
                    "average",
                    default=True,
                    tooltip="On: weights are divided by the number of merges, as in the paper. Off: they count "
                    "as they are, which keeps identities stronger but can overdo the style.",
                ),
                *weights,
            ],
            outputs=[MergedSocket.Output("merged", tooltip="To Apply, Save or Report.")],
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
