"""Plots of a merge, from plain data to Pillow images; the one part of the engine that needs Pillow.

`duolora_core` itself never imports this package, so that training works without it: a caller who wants pictures asks
for them.

    sheet = merge_report("cat in watercolour", losses, blocks, content_dominant, style_dominant, notes)
    sheet.save("report.png")

Reading order: `fonts` and `canvas` (how to draw), `scales` (where), one file per chart, `sheets` (whole pictures).
"""

from .picture_grid import picture_grid
from .rank_chart import MergerRanks
from .sheets import gate_map, loss_curve, merge_report, rank_histogram, training_preview

__all__ = [
    "MergerRanks",
    "gate_map",
    "loss_curve",
    "merge_report",
    "picture_grid",
    "rank_histogram",
    "training_preview",
]
