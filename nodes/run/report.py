"""The figures and the words of a report, from what is known of a merge."""

from __future__ import annotations

from collections.abc import Sequence

from ...duolora_core.merge.overlap import BlockOverlap, block_overlaps
from ...duolora_core.merge.statistics import active_ranks, kind_statistics
from ...duolora_core.report import Finding, MergeFigures, MergerRanks, Prompts, findings
from .merge_result import MergeResult

_MOST_NOTES = 12


def figures(result: MergeResult) -> MergeFigures:
    """The data of the report; what has no masks has only its losses, if it was trained, and its notes."""
    title, notes = " + ".join(result.sources), result.notes[:_MOST_NOTES]
    if result.stack is None or result.gates is None:
        return MergeFigures(title, losses=result.losses, findings=findings({}, (), ()), notes=notes)
    overlaps = block_overlaps(result.gates, result.stack)
    return MergeFigures(
        title=title,
        losses=result.losses,
        blocks=result.blocks,
        kinds=kind_statistics(result.gates, result.stack),
        overlaps=overlaps,
        content_dominant=_ranks_in(result, "content"),
        style_dominant=_ranks_in(result, "style"),
        findings=_words(result, overlaps),
        notes=notes,
    )


def _words(result: MergeResult, overlaps: Sequence[BlockOverlap]) -> list[Finding]:
    recipe = result.merged.recipe
    used = recipe.get("inputs", {})
    own = {
        side: ", ".join(str(each.get("prompt", "")) for label, each in used.items() if label.startswith(side))
        for side in ("content", "style")
    }
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
