"""One picture of a novel content in a novel style, and the ways to make a content LoRA and a style LoRA of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from duolora_core.from_pictures import (
    Example,
    LearnConfig,
    LoraForm,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    learn,
    unzip,
    unzip_loras,
)
from duolora_core.merged import FoldedLora

from .model import Prompt, ShapesDenoiser, encode_picture
from .names import CONTENTS, STYLES, Split, labels
from .render import render


@dataclass(frozen=True)
class Source:
    """The content and the style of the one picture, by their labels."""

    content: int
    style: int

    @property
    def latent(self) -> Tensor:
        """(12, 16, 16), the same for every call."""
        generator = torch.Generator().manual_seed(3000 + 100 * self.content + self.style)
        return encode_picture(render(torch.tensor([self.content]), torch.tensor([self.style]), generator))[0]

    @property
    def prompt(self) -> Prompt:
        """Names both."""
        return Prompt(self.content, self.style)


def sources(split: Split) -> list[Source]:
    """Four pictures that hold each novel word of a split once."""
    return [Source(c, s) for c, s in zip(labels(CONTENTS, split), labels(STYLES, split), strict=True)]


@dataclass(frozen=True)
class Parts:
    """What a way made of a picture."""

    content: FoldedLora
    style: FoldedLora


Way = Callable[[ShapesDenoiser, Source], Parts]
FORM = LoraForm(rank=8, coverage="transformers")
CONFIG = LearnConfig(
    steps=300, learning_rate=1e-3, batch=4, micro_batch=8, schedule="linear", warmup=10, prior_weight=1.0
)
KNOWN_PICTURES = 56
"""Of known contents in known styles, which no LoRA may change: what class pictures are to a person or a dog."""


def class_examples() -> list[Example]:
    """Known pictures with prompts that name them, the same for every call."""
    generator = torch.Generator().manual_seed(5)
    contents, styles = (
        torch.tensor(labels(table, "known"))[torch.randint(14, (KNOWN_PICTURES,), generator=generator)]
        for table in (CONTENTS, STYLES)
    )
    prompts = [Prompt(int(c), int(s)) for c, s in zip(contents, styles, strict=True)]
    latents = encode_picture(render(contents, styles, generator))
    return [Example(latent, prompt) for latent, prompt in zip(latents, prompts, strict=True)]


@dataclass(frozen=True)
class Plain:
    """Two DreamBooths, each under its own word."""

    config: LearnConfig = CONFIG
    form: LoraForm = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        content = self._one(denoiser, Example(source.latent, Prompt(source.content, None)))
        return Parts(content, self._one(denoiser, Example(source.latent, Prompt(None, source.style))))

    def _one(self, denoiser: ShapesDenoiser, example: Example) -> FoldedLora:
        loras = concept_lora(denoiser.layout, "content", self.form)
        with attach_loras(denoiser.modules, loras) as live:
            for _ in learn(denoiser, live, [example], self.config, class_examples=class_examples()):
                pass
        return loras["content"].fold()


@dataclass(frozen=True)
class BLora:
    """One training on two blocks, or on two groups of them."""

    blocks: str
    config: LearnConfig = CONFIG
    form: LoraForm = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        loras = b_loras(denoiser.layout, self.form, blocks=self.blocks)
        example = Example(source.latent, source.prompt)
        with attach_loras(denoiser.modules, loras) as live:
            for _ in learn(denoiser, live, [example], self.config, class_examples=class_examples()):
                pass
        return Parts(loras["content"].fold(), loras["style"].fold())


@dataclass(frozen=True)
class Unzip:
    """UnZipLoRA or the first of its parts."""

    config: UnzipConfig = field(default_factory=lambda: UnzipConfig(CONFIG))
    form: LoraForm = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        loras = unzip_loras(denoiser.layout, self.form, self.config)
        prompts = UnzipPrompts(source.prompt, Prompt(source.content, None), Prompt(None, source.style))
        kept: list[Example] = class_examples()
        with attach_loras(denoiser.modules, loras) as live:
            for _ in unzip(denoiser, live, [source.latent], prompts, self.config, class_examples=kept):
                pass
        return Parts(loras["content"].fold(), loras["style"].fold())
