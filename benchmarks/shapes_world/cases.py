"""The merges that are measured: every novel content with every novel style of one split."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Prompt
from .names import CONTENTS, STYLES, Split, labels


@dataclass(frozen=True)
class Case:
    """One content and one style by their labels."""

    content: int
    style: int

    @property
    def name(self) -> str:
        return f"{CONTENTS[self.content].name}+{STYLES[self.style].name}"

    @property
    def prompt(self) -> Prompt:
        """The combined prompt."""
        return Prompt(self.content, self.style)


def cases(split: Split, count: int | None = None) -> list[Case]:
    """The pairs of a split, sixteen or the first `count`, so ordered that four hold each word once."""
    contents, styles = labels(CONTENTS, split), labels(STYLES, split)
    size = len(contents)
    return [Case(contents[i], styles[(i + turn) % size]) for turn in range(size) for i in range(size)][:count]


def case_of(name: str) -> Case:
    """The case of a name such as sks1+zwx1.

    Raises:
        ValueError: a word is not in the world.
    """
    content, _, style = name.partition("+")
    return Case([entry.name for entry in CONTENTS].index(content), [entry.name for entry in STYLES].index(style))
