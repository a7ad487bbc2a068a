"""The words of the world: every content and every style by its one-word name, and which split it belongs to."""

from __future__ import annotations

from benchmarks.words import SPLITS, Entry, Split, labels

__all__ = ["CONTENTS", "SPLITS", "STYLES", "Entry", "Split", "labels"]


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
