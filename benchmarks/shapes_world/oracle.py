"""The oracle: which content and which style a picture shows, or "other" when it shows none.

It has seen every content and every style, the novel ones too, and has no part in any training but its own.
`python -m benchmarks.shapes_world.oracle --train` makes its weights again, `--check` measures those that are there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.word_classifier import (
    Classifier,
    Say,
    every_pair,
    fit,
    load_classifier,
    percent,
    save_classifier,
    tell_right,
    train_or_check,
)

from .names import CONTENTS, STYLES
from .odd import ODD, OTHER_CONTENT, OTHER_STYLE, UNSURE, Draw, Labelled, intact, worn
from .render import render

WEIGHTS = Path(__file__).parent / "weights" / "oracle.safetensors"
STEPS = 2600
BATCH = 64  # pictures as they should be; as many odd ones come on top

SURE = 0.9
"""How sure the oracle must be that a picture shows none of its names. It learned on as many odd pictures as named ones,
most of them near misses, so that at even odds it calls a shape with a dent or a blurred texture none at all."""


class Oracle(Classifier):
    """Pictures (n, 3, 32, 32) to logits of contents (n, contents + 1) and styles (n, styles + 1); the last is other."""

    def __init__(self) -> None:
        super().__init__(((24, 2), (40, 1), (56, 2), (56, 1), (64, 2)), OTHER_CONTENT + 1, OTHER_STYLE + 1)

    def label(self, logits: Tensor) -> Tensor:
        """(n, entries + 1) → (n,): the likeliest entry, or other where the oracle is sure of that."""
        other = logits.shape[1] - 1
        return torch.where(logits.softmax(1)[:, other] >= SURE, other, logits[:, :other].argmax(1))


def load_oracle(path: Path = WEIGHTS) -> Oracle:
    """The trained oracle; see `load_classifier`."""
    return load_classifier(Oracle(), path, (CONTENTS, STYLES), "benchmarks.shapes_world.oracle")


def save_oracle(oracle: Oracle, path: Path = WEIGHTS) -> None:
    save_classifier(oracle, path, (CONTENTS, STYLES))


def train(steps: int, seed: int, say: Say) -> Oracle:
    """An oracle trained on renders and odd pictures; every picture is new."""
    torch.manual_seed(seed)
    draw = Draw(torch.Generator().manual_seed(seed))

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        drawn = _batch(draw)
        return drawn.pictures, drawn.contents, drawn.styles

    return fit(Oracle(), batch, steps, say, (CONTENTS, STYLES), bf16=False)


def _batch(draw: Draw) -> Labelled:
    """Pictures as they should be, and some of every odd kind, the harder ones more; nearly all are a little worn."""
    hard = {"two_contents": 8, "two_styles": 6, "cut": 6, "new_shape": 12, "new_style": 14}
    parts = [intact(BATCH, draw), *(make(hard.get(kind, 3), draw) for kind, make in ODD.items())]
    pictures = torch.cat([part.pictures for part in parts])
    pictures = torch.where(draw.uniform(0, 1, len(pictures), 1, 1, 1) < 0.8, worn(pictures, draw), pictures)
    return Labelled(pictures, torch.cat([p.contents for p in parts]), torch.cat([p.styles for p in parts]))


def check(oracle: Oracle, say: Say, seed: int = 10**6, each: int = 25) -> None:
    """Says how well the oracle reads renders that it never saw, by split, worn ones, and odd ones by kind."""
    generator = torch.Generator().manual_seed(seed)
    truth = every_pair((CONTENTS, STYLES), each)
    pictures = render(*truth, generator)
    for title, shown in (("renders", pictures), ("worn renders", worn(pictures, Draw(generator)))):
        tell_right(oracle, title, shown, truth, (CONTENTS, STYLES), say)
    for kind, make in ODD.items():
        say(f"odd, {kind}: {_odd_line(oracle, make(1000, Draw(generator)))}")


def _odd_line(oracle: Oracle, odd: Labelled) -> str:
    words: list[str] = []
    answers = zip(("content", "style"), oracle.judge(odd.pictures), (odd.contents, odd.styles), strict=True)
    for (head, answer, truth), other in zip(answers, (OTHER_CONTENT, OTHER_STYLE), strict=True):
        for what, rows in (("other", truth == other), ("kept", (truth != other) & (truth != UNSURE))):
            if rows.any():
                words.append(f"{head} {what} {percent(answer[rows] == truth[rows])}")
    return "  ".join(words)


if __name__ == "__main__":
    train_or_check(
        __doc__,
        WEIGHTS,
        STEPS,
        lambda steps, seed, say: save_oracle(train(steps, seed, say)),
        lambda say: check(load_oracle(), say),
    )
