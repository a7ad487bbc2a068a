"""Merge Report: what the merge did, as one picture."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..duolora_core.gates import active_ranks
from ..duolora_core.report import merge_report
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
            description="Shows what the merge did: the losses, how open the masks of content and style are in each block, "
            "and how many rank components stayed active.",
            search_aliases=["duolora", "gate map", "plot loss", "lora report"],
            is_output_node=True,
            inputs=[MergedSocket.Input("merged", tooltip="From ZipRank Merge.")],
            outputs=[io.Image.Output("report", tooltip="The report as a picture, to save or preview.")],
        )

    @classmethod
    def execute(cls, merged: MergeResult) -> io.NodeOutput:
        content_ranks, style_ranks = _ranks_by_role(merged)
        title = " + ".join(merged.sources)
        sheet = merge_report(title, merged.losses, merged.blocks, content_ranks, style_ranks, merged.notes[:12])
        image = torch.from_numpy(np.asarray(sheet.convert("RGB"), dtype=np.float32) / 255.0)[None]  # (1, h, w, 3)
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def _ranks_by_role(result: MergeResult) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Active ranks per layer of both LoRAs, in content-dominant and in style-dominant layers (the paper's Fig. 4)."""
    by_role: dict[str, dict[str, list[int]]] = {
        role: {"content": [], "style": []} for role in ("content", "style", "neutral")
    }
    for name, (content, style) in (active_ranks(result.gates) if result.gates else {}).items():
        by_role[result.roles[name]]["content"].append(content)
        by_role[result.roles[name]]["style"].append(style)
    return by_role["content"], by_role["style"]
