"""What the base model is trained on: known subjects in known styles, and nameless pictures of the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.word_pretraining import Batch

from .model import Prompt, encode_picture
from .names import BACKGROUNDS, STYLES, labels
from .pictures import SIZE, true_pictures
from .wild import known_subjects, named_hands, wild, wild_content, wild_style

NAMED, WILD_STYLE, WILD_CONTENT = 0.6, 0.2, 0.1
"""Shares of the pictures: all named, a known subject in a nameless look, the reverse; the rest has no name at all."""
MISSING = 0.08, 0.08, 0.15
"""How often the word of subject, style and background is left out of a prompt all the same."""
EMPTY = 0.07
"""How often all are: the empty prompt, often enough for guidance."""


def draw_batch(count: int, sigmas: Tensor, generator: torch.Generator) -> Batch:
    """A batch that depends on the generator alone; `sigmas` (timesteps,) are drawn from evenly."""
    subjects, known_styles = known_subjects(), torch.tensor(labels(STYLES, "known"))
    hands = torch.tensor(named_hands())
    contents, styles = (
        table[torch.randint(len(table), (count,), generator=generator)] for table in (subjects, known_styles)
    )
    backgrounds = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
    kind = torch.rand(count, generator=generator)
    no_style = (kind >= NAMED) & (kind < NAMED + WILD_STYLE)
    no_content = (kind >= NAMED + WILD_STYLE) & (kind < NAMED + WILD_STYLE + WILD_CONTENT)
    neither = kind >= NAMED + WILD_STYLE + WILD_CONTENT
    named = kind < NAMED
    styles = torch.where(no_content, hands[styles % len(hands)], styles)

    pictures = torch.empty(count, 3, SIZE, SIZE)
    pictures[named] = true_pictures(contents[named], styles[named], backgrounds[named])
    if no_style.any():
        pictures[no_style] = wild_style(contents[no_style], generator)
    if no_content.any():
        pictures[no_content] = wild_content(styles[no_content], generator)
    if neither.any():
        pictures[neither] = wild(int(neither.sum()), generator)

    drop = torch.rand(count, 3, generator=generator) < torch.tensor(MISSING)
    drop |= torch.rand(count, 1, generator=generator) < EMPTY
    drop |= torch.stack([no_content | neither, no_style | neither, ~named], dim=1)
    words = torch.stack([contents, styles, backgrounds], dim=1)
    prompts = [
        Prompt(*(None if gone else word for word, gone in zip(row, dropped, strict=True)))
        for row, dropped in zip(words.tolist(), drop.tolist(), strict=True)
    ]
    latents = encode_picture(pictures)
    sigma = sigmas[torch.randint(len(sigmas), (count,), generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    return Batch(latents, sigma, noise, prompts)
