"""Save Merged LoRA."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..duolora_core.errors import SettingsError
from ..duolora_core.lora.metadata import FileInfo, metadata
from ..duolora_core.lora.save import kohya_state_dict, without_what_diffusers_refuses, write_safetensors
from ..duolora_core.merge.masks_file import save_masks
from .host.files import MASKS_SUFFIX, save_numbered
from .run.merge_result import MergeResult
from .ui.schema import schema
from .ui.sockets import MergedSocket
from .ui.widgets import strength_inputs

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LORA, MASKS = "LoRA", "masks only"


class SaveMergedLora(io.ComfyNode):
    """Writes an ordinary LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SaveMerged",
            search_aliases=["duolora", "save lora", "export lora"],
            is_output_node=True,
            inputs=[
                MergedSocket.Input("merged"),
                io.String.Input("filename_prefix", default="duolora/merged"),
                *strength_inputs(),
                io.Combo.Input("precision", options=list(DTYPES), default="fp16"),
                io.Int.Input("max_rank", default=0, min=0, max=1024),
                io.Combo.Input("what", options=[LORA, MASKS], default=LORA),
                io.Boolean.Input("for_diffusers", default=False, optional=True),
            ],
            outputs=[io.String.Output("lora_name")],
        )

    @classmethod
    def execute(
        cls,
        merged: MergeResult,
        filename_prefix: str,
        content_strength: float,
        style_strength: float,
        precision: str,
        max_rank: int,
        what: str,
        for_diffusers: bool = False,
    ) -> io.NodeOutput:
        if what == MASKS:
            name = _save_masks(merged, filename_prefix)
            return io.NodeOutput(name, ui=ui.PreviewText(f"Saved masks as {name}"))
        folded = merged.merged.fold(content_strength, style_strength, max_rank or None)
        reduced, refused = without_what_diffusers_refuses(folded)
        folded = reduced if for_diffusers else folded
        tensors = kohya_state_dict(folded, DTYPES[precision])
        if not tensors:
            raise SettingsError(
                "Nothing is left to save: all masks have closed, or both strengths are 0. The info output of the "
                "merge says which masks have."
            )
        saved_as = {"content_strength": content_strength, "style_strength": style_strength, "max_rank": max_rank}
        if for_diffusers and refused:
            saved_as["left_out_for_diffusers"] = refused
        recipe = {**merged.merged.recipe, "saved": saved_as}
        trigger = _trigger(merged, content_strength, style_strength)
        # Titled without the number, so that the same merge saved again is the same file.
        title = filename_prefix.replace("\\", "/").rpartition("/")[2].strip()
        values = metadata(folded, _info(merged, title, trigger), recipe)
        name = save_numbered(filename_prefix, ".safetensors", lambda path: write_safetensors(path, tensors, values))
        size = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
        ranks = [low_rank.rank for low_rank in folded.layers.values()]
        mean = sum(ranks) / len(ranks) if ranks else 0
        text = f"Saved {name}: {size:.1f} MB, mean rank {mean:.0f}, left out {folded.error:.2%} of the merge"
        if refused and for_diffusers:
            text += f"\n{refused} changes of norms, biases or text embeddings were left out for diffusers"
        elif refused:
            text += (
                f"\nIt holds {refused} changes of norms, biases or text embeddings, for which diffusers refuses it. "
                "ComfyUI takes them; switch on for_diffusers to leave them out."
            )
        return io.NodeOutput(name, ui=ui.PreviewText(text))


def _save_masks(result: MergeResult, prefix: str) -> str:
    if result.stack is None or result.gates is None:
        raise SettingsError(
            "Combined merges, those with turned blocks or other strengths of their LoRAs, and LoRAs trained from "
            "pictures have no masks of their own. "
            "Save the masks of the merge that was trained, or save a LoRA."
        )
    stack, gates, recipe = result.stack, result.gates, result.merged.recipe
    return save_numbered(prefix, MASKS_SUFFIX, lambda path: save_masks(path, gates, stack, recipe))


def _trigger(result: MergeResult, content_strength: float, style_strength: float) -> str:
    """The prompt of all, or that of the only side that is saved."""
    alone = "style" if not content_strength else "content" if not style_strength else ""
    inputs: dict[str, dict[str, Any]] = result.merged.recipe.get("inputs", {})
    own = [each.get("prompt", "") for label, each in inputs.items() if alone and label.startswith(alone)]
    return "; ".join(filter(None, own)) or result.trigger_phrase


def _info(result: MergeResult, title: str, trigger: str) -> FileInfo:
    return FileInfo(
        title=title,
        trigger_phrase=trigger,
        prediction=result.prediction,
        merged_from=tuple(result.sources),
    )
