"""What the benchmarks and the engine make of the shapes world without a host, for the tests to compare a host with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.shapes_world.model import Prompt, ShapesDenoiser, ShapesModel
from benchmarks.shapes_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.sample import sample
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


def prompt(text: str) -> Prompt:
    """What the benchmarks take for the words of a prompt."""
    words = re.findall(r"\w+", text)
    contents = [label for label, entry in enumerate(CONTENTS) if entry.name in words]
    styles = [label for label, entry in enumerate(STYLES) if entry.name in words]
    return Prompt(contents[0] if contents else None, styles[0] if styles else None)


def folded(path: Path, model: ShapesModel) -> FoldedLora:
    """A LoRA file as the benchmarks apply it."""
    layout = model.layout
    return unet_part(match_to_model(read_lora(path), layout), layout)


def sampled_latents(model: ShapesModel, text: str, seed: int, count: int, steps: int, cfg: float) -> Tensor:
    """(count, 12, 16, 16), what `sample` decodes: the guided x0 of its last step."""
    last: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        last[:] = [model(x, sigma, prompts)]
        return last[0]

    sample(denoise, [prompt(text)] * count, torch.Generator().manual_seed(seed), steps, cfg)
    with_prompt, without = last[0].chunk(2)
    return without + cfg * (with_prompt - without)


def trained_gates(
    model: ShapesModel,
    loras: tuple[Path, Path],
    latents: Mapping[str, Tensor],
    prompts: tuple[str, str],
    config: MergeConfig,
) -> Gates:
    """The gates that the engine reaches from the latents (n, 12, 16, 16) of "content" and "style"."""
    denoiser = ShapesDenoiser(model)
    both = prompt(" ".join(prompts))
    content, style = (
        [Picture(latent, prompt(own), both) for latent in latents[side]]
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
