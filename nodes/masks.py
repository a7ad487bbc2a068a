"""Load Masks: a saved merge made again from its masks and its LoRAs, without training."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..duolora_core import make_merged
from ..duolora_core.errors import SettingsError
from ..duolora_core.files.file_hash import file_hash
from ..duolora_core.merge.masks_file import gates_of, read_masks, roles_of, routed
from ..duolora_core.merge.statistics import block_statistics
from .host import files
from .host.denoiser import prediction_of
from .run.loaded_lora import LoadedLora
from .run.merge_result import MergeResult
from .run.placed import coverage_notes, placed_stack
from .ui.schema import schema
from .ui.sockets import ConceptSocket, MergedSocket

NONE_SAVED = "(no masks saved yet)"


class LoadMasks(io.ComfyNode):
    """The other half of Save Merged LoRA with 'masks only'."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadMasks",
            search_aliases=["duolora", "load masks", "reuse merge"],
            inputs=[
                io.Model.Input("model"),
                ConceptSocket.Input("content"),
                ConceptSocket.Input("style"),
                io.Combo.Input("masks", options=files.masks_names() or [NONE_SAVED]),
                io.Clip.Input("clip", optional=True),
            ],
            outputs=[MergedSocket.Output("merged")],
        )

    @classmethod
    def execute(cls, model: Any, content: LoadedLora, style: LoadedLora, masks: str, clip: Any = None) -> io.NodeOutput:
        if masks == NONE_SAVED:
            raise SettingsError("No masks are saved yet. Save some with Save Merged LoRA, 'masks only'.")
        held = read_masks(files.lora_path(masks))
        stack = placed_stack(model, clip, content, style, held.basis)
        gates = gates_of(held, stack)
        stack = routed(held, stack)
        roles = roles_of(held, stack.layout)
        result = MergeResult(
            merged=make_merged(stack, gates, held.recipe),
            trigger_phrase=str(held.recipe.get("combined_prompt", "")),
            prediction=prediction_of(model.get_model_object("model_sampling")),
            sources=[lora.file.name for lora in stack.loras],
            notes=[f"made again from {held.name}", *coverage_notes(stack)],
            blocks=block_statistics(gates, stack, roles),
            stack=stack,
            gates=gates,
            roles=roles,
        )
        return io.NodeOutput(result)

    @classmethod
    def fingerprint_inputs(cls, masks: str | None = None, **_: Any) -> str:
        """The file's content."""
        return "" if masks in (None, NONE_SAVED) else file_hash(files.lora_path(masks))

    @classmethod
    def validate_inputs(cls, masks: str | None = None) -> bool | str:
        known = masks in (None, NONE_SAVED) or masks in files.masks_names()
        return known or f"{masks} is not in the loras folders. Refresh the list (press R) and choose it again."
