"""The words of the world: every content and every style by its one-word name, and which split it belongs to."""

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


def _entries(known: str, novel: dict[str, str], token: str) -> tuple[Entry, ...]:
    entries = [Entry(word, "known", word) for word in known.split()]
    for split in SPLITS[1:]:
        for looks in novel[split].split():
            entries.append(Entry(f"{token}{sum(e.split != 'known' for e in entries) + 1}", split, looks))
    return tuple(entries)


CONTENTS = _entries(
    "disc square triangle star heart plus ring moon arrow diamond drop house bolt pill",
    {"dev": "fish flower bunny corner", "test": "hourglass mushroom crown key"},
    "sks",
)
STYLES = _entries(
    "ember ocean moss lemon grape snow ink candy rust night lime coral mint slate",
    {"dev": "neon orchard circus tango", "test": "orchid lagoon silver plaid"},
    "zwx",
)


def labels(entries: tuple[Entry, ...], *splits: Split) -> list[int]:
    """Positions in the table of the entries of these splits."""
    return [label for label, entry in enumerate(entries) if entry.split in splits]
