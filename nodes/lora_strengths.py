"""LoRA Strengths: each LoRA of a merge on a dial of its own."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..duolora_core.errors import SettingsError
from ..duolora_core.merge.stack import MOST_LORAS
from .run.merge_result import MergeResult
from .ui.schema import schema
from .ui.sockets import MergedSocket
from .ui.widgets import strength_input


class LoraStrengths(io.ComfyNode):
    """A strength for every LoRA of a merge, free after training."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoraStrengths",
            search_aliases=["duolora", "lora weight", "subject strength", "per-lora strength"],
            inputs=[
                MergedSocket.Input("merged"),
                *(strength_input(f"strength_{number}") for number in range(1, MOST_LORAS + 1)),
            ],
            outputs=[MergedSocket.Output("merged_out", display_name="merged"), io.String.Output("info")],
        )

    @classmethod
    def execute(cls, merged: MergeResult, **strengths: float) -> io.NodeOutput:
        given = [strengths[f"strength_{number}"] for number in range(1, MOST_LORAS + 1)]
        parts = merged.merged.parts
        if any(strength != 1 for strength in given[len(parts) :]):
            raise SettingsError(
                f"This merge is of {len(parts)} LoRAs: set strength_{len(parts) + 1} and those after it back to 1."
            )
        strong = merged.merged.with_strengths((given + [1.0] * len(parts))[: len(parts)])
        each = zip(range(1, len(parts) + 1), parts, given, strict=False)
        info = [f"{number}. {part.side}: {part.name or 'LoRA'}, times {strength:g}" for number, part, strength in each]
        result = replace(
            merged,
            merged=replace(strong, recipe={**strong.recipe, "lora_strengths": given[: len(parts)]}),
            notes=[*merged.notes, *info],
            stack=None,  # the masks are still those of the merge as it was trained
            gates=None,
        )
        return io.NodeOutput(result, "\n".join(info))
