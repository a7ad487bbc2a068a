"""Merge Report: what the merge did, as one picture and in words."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io, ui

from ..duolora_core.gates import active_ranks
from ..duolora_core.layer_kinds import kind_statistics
from ..duolora_core.overlap import BlockOverlap, block_overlaps
from ..duolora_core.report import Finding, MergeFigures, MergerRanks, Prompts, findings, merge_report
from .images import as_batch
from .schema import schema
from .sockets import CATEGORY, MergedSocket, MergeResult

_MOST_NOTES = 12


class MergeReport(io.ComfyNode):
    """Words, loss curve, rank histogram, gate maps by block and by layer kind, cosine of the two LoRAs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MergeReport",
            display_name="Merge Report",
            category=CATEGORY,
            description="Shows what the merge did: in plain words with hints at what to try next, and as charts of the "
            "losses, of how open the masks of content and style are in each block and layer kind, of how many rank "
            "components stayed active, and of how far the two LoRAs pull the same way.",
            search_aliases=["duolora", "gate map", "plot loss", "lora report"],
            is_output_node=True,
            inputs=[MergedSocket.Input("merged", tooltip="From ZipRank Merge or Load Masks.")],
            outputs=[
                io.Image.Output("report", tooltip="The report as a picture, to save or preview."),
                io.String.Output("words", tooltip="What the merge did and what to try next, one thing on each line."),
            ],
        )

    @classmethod
    def execute(cls, merged: MergeResult) -> io.NodeOutput:
        told = figures(merged)
        image = as_batch([merge_report(told)])
        words = "\n".join(finding.text for finding in told.findings)
        return io.NodeOutput(image, words, ui=ui.PreviewImage(image, cls=cls))


def figures(result: MergeResult) -> MergeFigures:
    """The data of the report; what has no masks has only its losses, if it was trained, and its notes."""
    title, notes = " + ".join(result.sources), result.notes[:_MOST_NOTES]
    if result.pair is None or result.gates is None:
        return MergeFigures(title, losses=result.losses, findings=findings({}, (), ()), notes=notes)
    overlaps = block_overlaps(result.gates, result.pair)
    return MergeFigures(
        title=title,
        losses=result.losses,
        blocks=result.blocks,
        kinds=kind_statistics(result.gates, result.pair),
        overlaps=overlaps,
        content_dominant=_ranks_in(result, "content"),
        style_dominant=_ranks_in(result, "style"),
        findings=_words(result, overlaps),
        notes=notes,
    )


def _words(result: MergeResult, overlaps: Sequence[BlockOverlap]) -> list[Finding]:
    recipe = result.merged.recipe
    used = recipe.get("inputs", {})
    own = {role: str(used.get(role, {}).get("prompt", "")) for role in ("content", "style")}
    # Without the cycle the masks do not depend on the combined prompt: there is nothing to merge again for.
    learned = recipe.get("config", {}).get("cycle_weight", 0)
    prompts = Prompts(own["content"], own["style"], str(recipe.get("combined_prompt", "")) if learned else "")
    return findings(result.losses, result.blocks, overlaps, prompts)


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
