"""One picture of a novel content in a novel style, and the ways to make a content LoRA and a style LoRA of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from duolora_core.lora.folded import FoldedLora
from duolora_core.train_lora import (
    Example,
    LoraConfig,
    TrainConfig,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    train_lora,
    unzip,
    unzip_loras,
)

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
FORM = LoraConfig(rank=8, coverage="transformers")
CONFIG = TrainConfig(steps=150, learning_rate=1e-3, batch=4, micro_batch=4, schedule="linear", warmup=10)
"""Longer, both LoRAs of DreamBooth become so strong that they no longer work together."""
PLACES = (
    "up_blocks.0=content, up_blocks.1.attentions.0=content, "
    "up_blocks.1.attentions.1=style, up_blocks.1.attentions.2=style"
)
"""Where this world's up path carries what (`blocks`): a style works in the shallow level alone, a content in both."""


@dataclass(frozen=True)
class Plain:
    """Two DreamBooths, each under its own word."""

    config: TrainConfig = CONFIG
    form: LoraConfig = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        content = self._one(denoiser, Example(source.latent, Prompt(source.content, None)))
        return Parts(content, self._one(denoiser, Example(source.latent, Prompt(None, source.style))))

    def _one(self, denoiser: ShapesDenoiser, example: Example) -> FoldedLora:
        loras = concept_lora(denoiser.layout, "content", self.form)
        with attach_loras(denoiser.modules, loras) as attached:
            for _ in train_lora(denoiser, attached, [example], self.config):
                pass
        return loras["content"].fold()


@dataclass(frozen=True)
class BLora:
    """One training on two blocks, or on two groups of them."""

    blocks: str = PLACES
    config: TrainConfig = CONFIG
    form: LoraConfig = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        loras = b_loras(denoiser.layout, self.form, blocks=self.blocks)
        example = Example(source.latent, source.prompt)
        with attach_loras(denoiser.modules, loras) as attached:
            for _ in train_lora(denoiser, attached, [example], self.config):
                pass
        return Parts(loras["content"].fold(), loras["style"].fold())


@dataclass(frozen=True)
class Unzip:
    """UnZipLoRA or the first of its parts."""

    config: UnzipConfig
    form: LoraConfig = FORM

    def __call__(self, denoiser: ShapesDenoiser, source: Source) -> Parts:
        loras = unzip_loras(denoiser.layout, self.form, self.config)
        prompts = UnzipPrompts(source.prompt, Prompt(source.content, None), Prompt(None, source.style))
        with attach_loras(denoiser.modules, loras) as attached:
            for _ in unzip(denoiser, attached, [source.latent], prompts, self.config):
                pass
        return Parts(loras["content"].fold(), loras["style"].fold())


LONGER = replace(CONFIG, steps=250)
"""For ways whose LoRAs are one model in training."""
ATTENTION = LoraConfig(rank=8, coverage="attention")
"""As UnZipLoRA's authors have it; where more is trained, prompts keep less apart."""
UNZIP = UnzipConfig(replace(LONGER, learning_rate=4e-3), blocks=PLACES)
PROMPTS_ALONE = UnzipConfig(
    replace(LONGER, learning_rate=2e-3), blocks=PLACES, separate_columns=False, separate_blocks=False
)
"""All columns at once need not go as far as a third of them."""
WAYS: Mapping[str, Way] = {
    "plain": Plain(),
    "b_lora": BLora(config=replace(LONGER, learning_rate=1.5e-3)),
    "unzip": Unzip(UNZIP, ATTENTION),
    "unzip: prompts": Unzip(PROMPTS_ALONE, ATTENTION),
    "unzip: prompts, columns": Unzip(replace(UNZIP, separate_blocks=False), ATTENTION),
}
"""By the names of the tables."""
