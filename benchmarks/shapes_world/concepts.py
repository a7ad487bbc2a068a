"""DreamBooth LoRAs for novel contents and styles, from a handful of pictures (section 4 of arXiv 2504.13206).

    python -m benchmarks.shapes_world.concepts            # all eight contents and eight styles

A content concept is seen in six known styles and a style concept on six known contents, with prompts that name them:
shown in one style only, a content LoRA learns that style as well. Known pictures in the batch preserve the prior. The
engine trains them, as it trains an artist's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.word_concepts import (
    Concept,
    ConceptTraining,
    Kind,
    Pictures,
    companions,
    fitted,
    known_pairs,
    make_files,
    novel_words,
    read_file,
    trained,
    write_file,
)
from duolora_core import LoraFile
from duolora_core.lora.folded import FoldedLora

from .model import WEIGHTS, Prompt, ShapesModel, encode_picture, load_model
from .names import CONTENTS, STYLES, Split, labels
from .render import render

LORAS = WEIGHTS / "loras"


@dataclass(frozen=True)
class ConceptConfig(ConceptTraining):
    """How a concept LoRA is trained.

    Attributes:
        companions: so many known entries of the other kind appear in its pictures
        pictures_each: of each of them
    """

    batch: int = 6
    prior_pictures: int = 392
    companions: int = 6
    pictures_each: int = 2


def concept_pictures(kind: Kind, label: int, config: ConceptConfig | None = None) -> Pictures:
    """The handful of pictures from which a concept is learned; the same for every call."""
    config = config or ConceptConfig()
    known = labels(STYLES if kind == "content" else CONTENTS, "known")
    return _pictures(*companions(kind, label, known, config.companions, config.pictures_each))


def known_pictures(count: int) -> Pictures:
    """Pictures of known contents in known styles with their prompts, the same for every call."""
    return _pictures(*known_pairs(labels(CONTENTS, "known"), labels(STYLES, "known"), count))


def _pictures(contents: Tensor, styles: Tensor, generator: torch.Generator) -> Pictures:
    prompts = [Prompt(int(c), int(s)) for c, s in zip(contents, styles, strict=True)]
    return Pictures(encode_picture(render(contents, styles, generator)), prompts)


def train_concept(model: ShapesModel, kind: Kind, label: int, config: ConceptConfig | None = None) -> FoldedLora:
    """A LoRA on the linears of the frozen model's transformers for one novel word."""
    config = config or ConceptConfig()
    own, known = concept_pictures(kind, label, config), known_pictures(config.prior_pictures)
    return trained(model, kind, own, known, config)


def lora_path(kind: Kind, label: int) -> Path:
    entry = (CONTENTS if kind == "content" else STYLES)[label]
    return LORAS / f"{kind}_{entry.name}.safetensors"


def read_concept(kind: Kind, label: int) -> LoraFile:
    """A concept's LoRA file; see `read_file`."""
    return read_file(lora_path(kind, label), "benchmarks.shapes_world.concepts")


def load_concept(model: ShapesModel, kind: Kind, label: int) -> FoldedLora:
    """A concept's LoRA as the model takes it; raises as `read_concept`."""
    return fitted(read_concept(kind, label), model)


def novel_concepts(*splits: Split) -> list[Concept]:
    return novel_words(CONTENTS, STYLES, *splits)


def make_file(concept: Concept) -> str:
    """Trains one concept and replaces its file; the file's name."""
    return write_file(lora_path(*concept), train_concept(load_model(), *concept), "shapes_world")


if __name__ == "__main__":
    make_files(__doc__, make_file, novel_concepts)
