"""Merge Report: what the merge did, as one picture."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..duolora_core.gates import active_ranks
from ..duolora_core.report import MergerRanks, merge_report
from .schema import schema
from .sockets import CATEGORY, MergedSocket, MergeResult


class MergeReport(io.ComfyNode):
    """Loss curve, gate map by block and rank histogram."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MergeReport",
            display_name="Merge Report",
            category=CATEGORY,
            description="Shows what the merge did: the losses, how open the masks of content and style are in "
            "each block, "
            "and how many rank components stayed active.",
            search_aliases=["duolora", "gate map", "plot loss", "lora report"],
            is_output_node=True,
            inputs=[MergedSocket.Input("merged", tooltip="From ZipRank Merge.")],
            outputs=[io.Image.Output("report", tooltip="The report as a picture, to save or preview.")],
        )

    @classmethod
    def execute(cls, merged: MergeResult) -> io.NodeOutput:
        ranks = _ranks_in(merged, "content"), _ranks_in(merged, "style")
        sheet = merge_report(" + ".join(merged.sources), merged.losses, merged.blocks, *ranks, merged.notes[:12])
        image = torch.from_numpy(np.asarray(sheet.convert("RGB"), dtype=np.float32) / 255.0)[None]  # (1, h, w, 3)
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def _ranks_in(result: MergeResult, role: str) -> MergerRanks:
    """Active ranks per layer of both LoRAs, over the layers of one role that they cover (the paper's Fig. 4)."""
    if result.gates is None:
        return {"content": [], "style": []}
    active = {name: ranks for name, ranks in active_ranks(result.gates).items() if result.roles[name] == role}
    slots = result.gates.slots
    return {
        "content": [content for name, (content, _) in active.items() if slots[name].content_rank],
        "style": [style for name, (_, style) in active.items() if slots[name].style_rank],
    }
