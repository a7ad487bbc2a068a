"""Words and pictures of a merge, from plain data to Pillow images; the one part of the engine that needs Pillow.

`duolora_core` itself never imports this package, so that training works without it: a caller who wants pictures asks
for them.

    words = findings(losses, blocks, overlaps, prompts)
    sheet = merge_report(MergeFigures("cat in watercolour", losses, blocks, kinds, overlaps, findings=words))
    sheet.save("report.png")

Reading order: `fonts` and `canvas` (how to draw), `scales` and `block_rows` (where), one file per chart (`loss_chart`,
`gate_chart`, `kind_chart`, `cosine_chart`, `rank_chart`), `findings` (words), `scores` (likeness to references),
`picture_grid`, `training_preview` and `merge_sheet` (whole pictures).
"""

from .findings import Finding, Prompts, findings, shares_a_word
from .merge_sheet import MergeFigures, merge_report
from .picture_grid import picture_grid
from .rank_chart import MergerRanks
from .training_preview import training_preview

__all__ = [
    "Finding",
    "MergeFigures",
    "MergerRanks",
    "Prompts",
    "findings",
    "merge_report",
    "picture_grid",
    "shares_a_word",
    "training_preview",
]
