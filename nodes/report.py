"""Merge Report: what the merge did, as one picture and in words."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..duolora_core.report import merge_report
from .run.merge_result import MergeResult
from .run.report import figures
from .ui.images import as_batch
from .ui.schema import schema
from .ui.sockets import MergedSocket


class MergeReport(io.ComfyNode):
    """Words, loss curve, rank histogram, gate maps by block and by layer kind, cosine of the two LoRAs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MergeReport",
            search_aliases=["duolora", "gate map", "plot loss", "lora report"],
            is_output_node=True,
            inputs=[MergedSocket.Input("merged")],
            outputs=[
                io.Image.Output("report"),
                io.String.Output("words"),
            ],
        )

    @classmethod
    def execute(cls, merged: MergeResult) -> io.NodeOutput:
        report = figures(merged)
        image = as_batch([merge_report(report)])
        words = "\n".join(finding.text for finding in report.findings)
        return io.NodeOutput(image, words, ui=ui.PreviewImage(image, cls=cls))
