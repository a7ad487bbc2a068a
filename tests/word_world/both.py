"""The worlds of the benchmarks, for tests of what holds in either."""

from __future__ import annotations

import re
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
from benchmarks.word_sampling import sample_latents


@dataclass(frozen=True)
class World:
    """A world as the benchmarks have it.

    Attributes:
        prompts: four, of whole prompts and parts of them, and the empty one
        tables: the words of each kind, in the order of a prompt's
        novel: the label of a novel content
        pictures: so many, each of another prompt
    """

    name: str
    make: Callable[[], WordModel]
    prompts: Sequence[Any]
    pictures: Callable[[int], tuple[Tensor, list[Any]]]
    novel: int
    novel_word: str
    tables: Sequence[Sequence[str]]
    module: ModuleType
    concepts: ModuleType
    sample: Callable[..., Tensor]

    def prompt(self, text: str) -> Any:
        """What the benchmarks take for the words of a prompt."""
        words = re.findall(r"\w+", text)
        found = [[label for label, name in enumerate(table) if name in words] for table in self.tables]
        return type(self.prompts[0])(*(labels[0] if labels else None for labels in found))

    def sampled_latents(
        self, model: Callable[..., Tensor], text: str, seed: int, count: int, steps: int, cfg: float
    ) -> Tensor:
        """(count, channels, 16, 16), what the world's own sampler decodes."""
        shape = count, self.module.CONFIG.in_channels, 16, 16
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return sample_latents(model, [self.prompt(text)] * count, noise, steps, cfg, empty=self.prompt(""))


def _shapes_pictures(count: int) -> tuple[Tensor, list[Any]]:
    entries = torch.arange(count)
    return render(entries, entries, torch.Generator().manual_seed(0)), [shapes.Prompt(i, i) for i in range(count)]


def _art_pictures(count: int) -> tuple[Tensor, list[Any]]:
    prompts = known_prompts(count)
    return truths(prompts), prompts


SHAPES, ART = (
    World(
        "shapes",
        shapes.ShapesModel,
        [shapes.Prompt(0, 1), shapes.Prompt(14, None), shapes.Prompt(None, 15), shapes.Prompt()],
        _shapes_pictures,
        14,
        "sks1",
        [[entry.name for entry in table] for table in (shapes.CONTENTS, shapes.STYLES)],
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
        [*([entry.name for entry in table] for table in (art.CONTENTS, art.STYLES)), [*art.BACKGROUNDS]],
        art,
        art_concepts,
        art_sample,
    ),
)
WORLDS = SHAPES, ART
