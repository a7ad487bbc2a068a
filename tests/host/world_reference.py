"""What the benchmarks and the engine make of the shapes world without a host, for the tests to compare a host with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from benchmarks.word_model import WordDenoiser, WordModel
from duolora_core import (
    Gates,
    MergeConfig,
    Picture,
    attach,
    layer_roles,
    make_pair,
    match_to_model,
    read_lora,
    starting_gates,
    train,
)
from duolora_core.lora.folded import FoldedLora, unet_part
from word_world.both import SHAPES


def folded(path: Path, model: WordModel) -> FoldedLora:
    """A LoRA file as the benchmarks apply it."""
    layout = model.layout
    return unet_part(match_to_model(read_lora(path), layout), layout)


def trained_gates(
    model: WordModel,
    loras: tuple[Path, Path],
    latents: Mapping[str, Tensor],
    prompts: tuple[str, str],
    config: MergeConfig,
) -> Gates:
    """The gates that the engine reaches from the latents (n, 12, 16, 16) of "content" and "style"."""
    denoiser = WordDenoiser(model)
    both = SHAPES.prompt(" ".join(prompts))
    content, style = (
        [Picture(latent, SHAPES.prompt(own), both) for latent in latents[side]]
        for side, own in zip(("content", "style"), prompts, strict=True)
    )
    placed = [match_to_model(read_lora(path), denoiser.layout) for path in loras]
    pair = make_pair(placed[0], placed[1], denoiser.layout, config.basis)
    roles = layer_roles(denoiser.layout, config.layer_prior)
    gates = starting_gates(pair, roles, config)
    with attach(denoiser.modules, pair, gates) as gated:
        for _ in train(denoiser, gated, content, style, roles, config):
            pass
    return gates
