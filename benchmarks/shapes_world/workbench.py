"""The world with everything that a merge needs in it: model, oracle, concept LoRAs as pairs, training pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import torch
from torch import Tensor

from benchmarks.word_concepts import Kind
from duolora_core import (
    LoraPair,
    LoraStack,
    MergeConfig,
    Picture,
    StepReport,
    attach,
    layer_roles,
    make_pair,
    make_stack,
    match_to_model,
    starting_gates,
    train,
)
from duolora_core.baselines.zip_lora import Axis, ZipLoraConfig, ZippedLora, attach_zip, zip_lora
from duolora_core.merge.gates import Gates
from duolora_core.merge.router import with_router
from duolora_core.merge.stack import Basis

from .applied import applied
from .cases import Case
from .concepts import concept_pictures, load_concept, read_concept
from .model import Prompt, ShapesDenoiser, ShapesModel, encode_picture, load_model
from .names import CONTENTS, STYLES, labels
from .oracle import Oracle, load_oracle
from .sample import sample

PictureSource = Literal["given", "self-made", "word alone"]
"""Of a merge: the concept's own pictures with prompts that name everything in them; four that each LoRA paints for its
word beside a known one, as the merge node does for "a photo of sks dog"; or four that it paints for its word alone."""

SELF_MADE_CFG = 6.0


@dataclass(frozen=True)
class Workbench:
    """Made by `open_workbench`."""

    model: ShapesModel
    oracle: Oracle

    @cached_property
    def denoiser(self) -> ShapesDenoiser:
        return ShapesDenoiser(self.model)

    def pair(self, case: Case, basis: Basis = "svd") -> LoraPair:
        """The case's two committed LoRAs, read and placed as any file is."""
        content, style = (
            match_to_model(read_concept(kind, label), self.denoiser.layout) for kind, label in _sides(case)
        )
        return make_pair(content, style, self.denoiser.layout, basis)

    def pictures(self, case: Case, source: PictureSource = "given") -> list[list[Picture]]:
        """Content and style pictures to train a merge on."""
        sides: list[list[Picture]] = []
        for kind, label in _sides(case):
            if source == "given":
                seen = concept_pictures(kind, label)
                latents, owns = seen.latents, seen.prompts
            else:
                known = label % len(labels(STYLES if kind == "content" else CONTENTS, "known"))
                beside = None if source == "word alone" else known
                owns = [Prompt(label, beside) if kind == "content" else Prompt(beside, label)] * 4
                with applied(self.model, load_concept(self.model, kind, label)) as model:
                    latents = encode_picture(
                        sample(model, owns, torch.Generator().manual_seed(label), cfg=SELF_MADE_CFG)
                    )
            sides.append([Picture(latent, own, case.prompt) for latent, own in zip(latents, owns, strict=True)])
        return sides

    def duolora(
        self,
        case: Case,
        config: MergeConfig,
        source: PictureSource = "given",
        watch: Callable[[StepReport], None] = lambda report: None,
    ) -> tuple[LoraPair, Gates]:
        """The case's pair and the gates that the engine trained; `watch` sees every step."""
        pair = self.pair(case, config.basis)
        roles = layer_roles(self.denoiser.layout, config.layer_prior)
        gates = starting_gates(pair, roles, config)
        content, style = self.pictures(case, source)
        with attach(self.denoiser.modules, pair, gates) as gated:
            for report in train(self.denoiser, gated, content, style, roles, config):
                watch(report)
        return pair, gates

    def stack(self, contents: Sequence[int], styles: Sequence[int], basis: Basis = "svd") -> LoraStack:
        """The committed LoRAs of these contents and styles, read and placed as any file is."""
        layout = self.denoiser.layout
        kinds: tuple[Kind, Kind] = ("content", "style")
        placed = [
            [match_to_model(read_concept(kind, label), layout) for label in labels]
            for kind, labels in zip(kinds, (contents, styles), strict=True)
        ]
        return make_stack(placed[0], placed[1], layout, basis)

    def stack_pictures(self, contents: Sequence[int], styles: Sequence[int]) -> list[list[Picture]]:
        """Each LoRA's own pictures, without a combined prompt."""
        kinds: tuple[Kind, Kind] = ("content", "style")
        return [
            [
                Picture(latent, own, None, number)
                for number, label in enumerate(labels)
                for latent, own in zip(*given_pictures(kind, label), strict=True)
            ]
            for kind, labels in zip(kinds, (contents, styles), strict=True)
        ]

    def joint(self, contents: Sequence[int], styles: Sequence[int], config: MergeConfig) -> tuple[LoraStack, Gates]:
        """All these LoRAs in one merge, as the merge node trains it."""
        content, style = self.stack_pictures(contents, styles)
        stack = with_router(self.denoiser, self.stack(contents, styles, config.basis), content, style, config)
        roles = layer_roles(self.denoiser.layout, config.layer_prior)
        gates = starting_gates(stack, roles, config)
        with attach(self.denoiser.modules, stack, gates) as gated:
            for _ in train(self.denoiser, gated, content, style, roles, config):
                pass
        return stack, gates

    def zip_lora(self, case: Case, config: ZipLoraConfig, axis: Axis) -> ZippedLora:
        """The same LoRAs and pictures merged by ZipLoRA."""
        content, style = self.pictures(case)
        with attach_zip(self.denoiser.modules, self.pair(case), axis) as zipped:
            for _ in zip_lora(self.denoiser, zipped, content, style, config):
                pass
        return zipped


@cache
def open_workbench() -> Workbench:
    """The committed world; one for each process."""
    return Workbench(load_model(), load_oracle())


def given_pictures(kind: Kind, label: int) -> tuple[Sequence[Tensor], Sequence[Prompt]]:
    """The latents that a concept LoRA was trained on, with their prompts."""
    seen = concept_pictures(kind, label)
    return list(seen.latents), list(seen.prompts)


def _sides(case: Case) -> Sequence[tuple[Kind, int]]:
    return ("content", case.content), ("style", case.style)
