"""DreamBooth LoRAs for novel subjects and styles, from a handful of drawings (section 4 of arXiv 2504.13206).

    python -m benchmarks.art_world.concepts --splits dev

A subject is seen in six known styles and a style on eight known subjects, with prompts that name them: shown in one
style only, a subject's LoRA learns that style as well. Known pictures in the batch preserve the prior. The engine
trains them, as it trains an artist's.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.word_model import WordDenoiser
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

from .model import WEIGHTS, ArtModel, Prompt, encode_picture, load_model
from .names import BACKGROUNDS, CONTENTS, SPLITS, STYLES, Entry, Split, labels
from .pictures import true_pictures

Kind = Literal["content", "style"]
LORAS = WEIGHTS / "loras"


@dataclass(frozen=True)
class ConceptConfig:
    """How a concept LoRA is trained.

    Attributes:
        batch: of its own pictures, and as many of the known ones
        prior_pictures: how many known pictures there are to draw from
        companions: so many known styles a subject, and so many known subjects a style is seen with
        backgrounds: of each pair
        strengths: each step applies the LoRA at a strength from this range, so that it works over an artist's dial
    """

    rank: int = 8
    coverage: TargetModules = "transformers"
    steps: int = 1200
    learning_rate: float = 1e-3
    batch: int = 4
    prior_weight: float = 0.5
    prior_pictures: int = 384
    companions: tuple[int, int] = (6, 8)
    backgrounds: int = 2
    strengths: tuple[float, float] = (0.6, 1.3)
    seed: int = 0


@dataclass(frozen=True)
class Pictures:
    """A concept's few pictures: latents (n, 48, 16, 16) and the prompt of each."""

    latents: Tensor
    prompts: list[Prompt]


def concept_pictures(kind: Kind, label: int, config: ConceptConfig | None = None) -> Pictures:
    """The handful of pictures from which a concept is learned; the same for every call."""
    config = config or ConceptConfig()
    generator = torch.Generator().manual_seed(1000 + label + (500 if kind == "style" else 0))
    known = torch.tensor(labels(STYLES if kind == "content" else CONTENTS, "known"))
    companions = known[torch.randperm(len(known), generator=generator)[: config.companions[kind == "style"]]]
    others = companions.repeat_interleave(config.backgrounds)
    mine = torch.full_like(others, label)
    contents, styles = (mine, others) if kind == "content" else (others, mine)
    return _pictures(contents, styles, generator)


def known_pictures(count: int) -> list[Example]:
    """Known subjects in known styles with their prompts, the same for every call."""
    generator = torch.Generator().manual_seed(2000)
    contents, styles = (
        known[torch.randint(len(known), (count,), generator=generator)]
        for known in (torch.tensor(labels(CONTENTS, "known")), torch.tensor(labels(STYLES, "known")))
    )
    drawn = _pictures(contents, styles, generator)
    return [Example(latent, prompt) for latent, prompt in zip(drawn.latents, drawn.prompts, strict=True)]


def _pictures(contents: Tensor, styles: Tensor, generator: torch.Generator) -> Pictures:
    backgrounds = torch.randint(len(BACKGROUNDS), contents.shape, generator=generator)
    rows = torch.stack([contents, styles, backgrounds], 1).tolist()
    return Pictures(encode_picture(true_pictures(contents, styles, backgrounds)), [Prompt(*row) for row in rows])


def train_concept(model: ArtModel, kind: Kind, label: int, config: ConceptConfig | None = None) -> FoldedLora:
    """A LoRA on the linears of the frozen model's transformers for one novel word."""
    config = config or ConceptConfig()
    own, denoiser = concept_pictures(kind, label, config), WordDenoiser(model)
    examples = [Example(latent, prompt) for latent, prompt in zip(own.latents, own.prompts, strict=True)]
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
    with attach_loras(denoiser.modules, loras) as live:
        for _ in train_lora(denoiser, live, examples, learning, class_examples=known_pictures(config.prior_pictures)):
            pass
    return loras[kind].fold()


def lora_path(kind: Kind, label: int) -> Path:
    entry = (CONTENTS if kind == "content" else STYLES)[label]
    return LORAS / f"{kind}_{entry.name}.safetensors"


def read_concept(kind: Kind, label: int) -> LoraFile:
    """A concept's LoRA file, read the way any LoRA file is read.

    Raises:
        FileNotFoundError: it is not trained yet; says how to make it.
    """
    path = lora_path(kind, label)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.art_world.concepts")
    return read_lora(path)


def load_concept(model: ArtModel, kind: Kind, label: int) -> FoldedLora:
    """A concept's LoRA as the model takes it; raises as `read_concept`."""
    layout = model.layout
    return unet_part(match_to_model(read_concept(kind, label), layout), layout)


def novel_concepts(*splits: Split) -> list[tuple[Kind, int]]:
    """Every subject and every style of these splits."""
    tables: tuple[tuple[Kind, tuple[Entry, ...]], ...] = (("content", CONTENTS), ("style", STYLES))
    return [(kind, label) for kind, table in tables for label in labels(table, *splits)]


def make_file(concept: tuple[Kind, int]) -> str:
    """Trains one concept and replaces its file; the file's name."""
    path = lora_path(*concept)
    state = kohya_state_dict(train_concept(load_model(), *concept))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_safetensors(path, state, {"ss_base_model_version": "art_world"})
    return path.name


def main() -> None:
    """Trains and writes the LoRAs of some splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", choices=SPLITS[1:], default=SPLITS[1:])
    wanted = parser.parse_args()
    for _, name in side_by_side(make_file, novel_concepts(*wanted.splits)):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
