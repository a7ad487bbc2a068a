"""DreamBooth LoRAs for novel words of a word model, from a handful of pictures (section 4 of arXiv 2504.13206).

The engine trains them, as it trains an artist's. Known pictures in the batch preserve the prior.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.word_model import WordDenoiser, WordModel
from benchmarks.words import SPLITS, Entry, Split, labels
from benchmarks.workers import side_by_side
from duolora_core import LoraFile, kohya_state_dict, match_to_model, read_lora
from duolora_core.lora.folded import FoldedLora, unet_part
from duolora_core.lora.save import write_safetensors
from duolora_core.train_lora import (
    Example,
    LoraConfig,
    TargetModules,
    TrainConfig,
    attach_loras,
    concept_lora,
    train_lora,
)

Kind = Literal["content", "style"]
Concept = tuple[Kind, int]
"""A novel word: its kind and its place in that kind's table."""


@dataclass(frozen=True)
class ConceptTraining:
    """How a concept LoRA is trained.

    Attributes:
        batch: of its own pictures, and as many of the known ones
        prior_pictures: how many known pictures there are to draw from
        strengths: each step applies the LoRA at a strength from this range. Trained at 1 alone, LoRAs of this size work
            at 1 alone; those that artists share hold over their dial.
    """

    rank: int = 8
    coverage: TargetModules = "transformers"
    steps: int = 1200
    learning_rate: float = 1e-3
    batch: int = 4
    prior_weight: float = 0.5
    prior_pictures: int = 384
    strengths: tuple[float, float] = (0.6, 1.3)
    seed: int = 0


@dataclass(frozen=True)
class Pictures:
    """Latents (n, channels, h, w), and the prompt of each."""

    latents: Tensor
    prompts: list[Any]

    def examples(self) -> list[Example]:
        return [Example(latent, prompt) for latent, prompt in zip(self.latents, self.prompts, strict=True)]


def companions(kind: Kind, label: int, known: Sequence[int], count: int, each: int) -> tuple[Tensor, Tensor, Any]:
    """Contents and styles of a concept's pictures, and the generator to draw them with; the same for every call.

    So many of the known words of the other kind appear beside it, each in so many pictures: shown in one style only, a
    content's LoRA learns that style as well.
    """
    generator = torch.Generator().manual_seed(1000 + label + (500 if kind == "style" else 0))
    others = torch.tensor(known)[torch.randperm(len(known), generator=generator)[:count]].repeat_interleave(each)
    mine = torch.full_like(others, label)
    return (mine, others, generator) if kind == "content" else (others, mine, generator)


def known_pairs(contents: Sequence[int], styles: Sequence[int], count: int) -> tuple[Tensor, Tensor, Any]:
    """So many known contents in known styles, and the generator to draw them with; the same for every call."""
    generator = torch.Generator().manual_seed(2000)
    one, other = (
        torch.tensor(known)[torch.randint(len(known), (count,), generator=generator)] for known in (contents, styles)
    )
    return one, other, generator


def trained(model: WordModel, kind: Kind, own: Pictures, known: Pictures, config: ConceptTraining) -> FoldedLora:
    """A LoRA on the linears of the frozen model's transformers for one novel word."""
    denoiser = WordDenoiser(model)
    learning = TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        clip=math.inf,
        batch=config.batch,
        micro_batch=2 * config.batch,
        schedule="linear",
        warmup=min(20, config.steps),
        prior_weight=config.prior_weight,
        strengths=config.strengths,
        seed=config.seed,
    )
    loras = concept_lora(denoiser.layout, kind, LoraConfig(config.rank, coverage=config.coverage), config.seed)
    with attach_loras(denoiser.modules, loras) as attached:
        for _ in train_lora(denoiser, attached, own.examples(), learning, class_examples=known.examples()):
            pass
    return loras[kind].fold()


def novel_words(contents: tuple[Entry, ...], styles: tuple[Entry, ...], *splits: Split) -> list[Concept]:
    """Every content and every style of these splits."""
    tables: tuple[tuple[Kind, tuple[Entry, ...]], ...] = (("content", contents), ("style", styles))
    return [(kind, label) for kind, table in tables for label in labels(table, *splits)]


def read_file(path: Path, maker: str) -> LoraFile:
    """A concept's LoRA file, read the way any LoRA file is read.

    Raises:
        FileNotFoundError: it is not trained yet; says which module makes it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m {maker}")
    return read_lora(path)


def fitted(file: LoraFile, model: WordModel) -> FoldedLora:
    """A LoRA file as the model takes it."""
    layout = model.layout
    return unet_part(match_to_model(file, layout), layout)


def write_file(path: Path, lora: FoldedLora, base: str) -> str:
    """Replaces a concept's file; the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_safetensors(path, kohya_state_dict(lora), {"ss_base_model_version": base})
    return path.name


def make_files(what: str | None, make: Callable[[Concept], str], concepts: Callable[..., Sequence[Concept]]) -> None:
    """A command that trains and writes the LoRAs of some splits side by side."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", choices=SPLITS[1:], default=SPLITS[1:])
    wanted = parser.parse_args()
    for _, name in side_by_side(make, concepts(*wanted.splits)):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
