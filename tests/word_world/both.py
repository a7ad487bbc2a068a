"""The worlds of the benchmarks, for tests of what holds in either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.art_world import concepts as art_concepts
from benchmarks.art_world import model as art
from benchmarks.art_world.calibration import known_prompts, truths
from benchmarks.art_world.sample import sample as art_sample
from benchmarks.shapes_world import concepts as shapes_concepts
from benchmarks.shapes_world import model as shapes
from benchmarks.shapes_world.render import render
from benchmarks.shapes_world.sample import sample as shapes_sample
from benchmarks.word_model import WordModel


@dataclass(frozen=True)
class World:
    """A world as the benchmarks have it.

    Attributes:
        prompts: four, of whole prompts and parts of them, and the empty one
        novel: the label of a novel content
        pictures: so many, each of another prompt
    """

    name: str
    make: Callable[[], WordModel]
    prompts: Sequence[Any]
    pictures: Callable[[int], tuple[Tensor, list[Any]]]
    novel: int
    novel_word: str
    module: ModuleType
    concepts: ModuleType
    sample: Callable[..., Tensor]


def _shapes_pictures(count: int) -> tuple[Tensor, list[Any]]:
    entries = torch.arange(count)
    return render(entries, entries, torch.Generator().manual_seed(0)), [shapes.Prompt(i, i) for i in range(count)]


def _art_pictures(count: int) -> tuple[Tensor, list[Any]]:
    prompts = known_prompts(count)
    return truths(prompts), prompts


WORLDS = (
    World(
        "shapes",
        shapes.ShapesModel,
        [shapes.Prompt(0, 1), shapes.Prompt(14, None), shapes.Prompt(None, 15), shapes.Prompt()],
        _shapes_pictures,
        14,
        "sks1",
        shapes,
        shapes_concepts,
        shapes_sample,
    ),
    World(
        "art",
        art.ArtModel,
        [art.Prompt(0, 1, 2), art.Prompt(14, None, 3), art.Prompt(None, 9, None), art.Prompt()],
        _art_pictures,
        len(art.CONTENTS) - 1,
        "sks16",
        art,
        art_concepts,
        art_sample,
    ),
)
