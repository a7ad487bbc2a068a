"""The networks that one model with LoRAs attached can be: every sample of a batch goes through one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

Branch = str
"""`base`, `sum` (of all LoRAs), `merge` (the LoRAs behind their gates), or the label of one LoRA: `content`, `style`,
and where several are merged `content 2` and so on."""


def branch_runs(branches: Sequence[Branch]) -> list[tuple[Branch, slice]]:
    """Each stretch of equal branches, and where it lies in the batch."""
    runs: list[tuple[Branch, slice]] = []
    for branch, group in groupby(branches):
        start = runs[-1][1].stop if runs else 0
        runs.append((branch, slice(start, start + len(list(group)))))
    return runs
