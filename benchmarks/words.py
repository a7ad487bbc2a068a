"""Words of a prompt, as the worlds of the benchmarks list them: known to the base model, or novel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["known", "dev", "test"]
SPLITS: tuple[Split, ...] = ("known", "dev", "test")


@dataclass(frozen=True)
class Entry:
    """A word of a prompt: its position in the table is its label.

    Attributes:
        name: the word itself; a novel entry has a rare token, which the base model never read
        split: "known" to the base model, or novel and for development ("dev") or for the final numbers ("test")
        looks: what a person sees
    """

    name: str
    split: Split
    looks: str


def labels(entries: tuple[Entry, ...], *splits: Split) -> list[int]:
    """Positions in the table of the entries of these splits."""
    return [label for label, entry in enumerate(entries) if entry.split in splits]
