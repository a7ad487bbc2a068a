"""LoRAs from pictures, put together: as a pair, and merged by DuoLoRA on the very pictures that they come from."""

from __future__ import annotations

from duolora_core import (
    PRESETS,
    LoraPair,
    Picture,
    PlacedLora,
    attach,
    kohya_state_dict,
    layer_roles,
    lora_from_tensors,
    make_merged,
    make_pair,
    match_to_model,
    starting_gates,
    train,
)
from duolora_core.lora.folded import FoldedLora

from .model import Prompt
from .single_picture import Source
from .workbench import Workbench


def pair_of(bench: Workbench, content: FoldedLora, style: FoldedLora) -> LoraPair:
    """Two LoRAs as they are read back from files."""

    def read(lora: FoldedLora, name: str) -> PlacedLora:
        return match_to_model(lora_from_tensors(kohya_state_dict(lora), name), bench.denoiser.layout)

    return make_pair(read(content, "content"), read(style, "style"), bench.denoiser.layout)


def merged(bench: Workbench, pair: LoraPair, content: Source, style: Source) -> FoldedLora:
    """Content of one picture in the style of another: the `fast` merge, each picture under its own word."""
    config, combined = PRESETS["fast"], Prompt(content.content, style.style)
    roles = layer_roles(bench.denoiser.layout, config.layer_prior)
    gates = starting_gates(pair, roles, config)
    pictures = (
        [Picture(content.latent, Prompt(content.content, None), combined)],
        [Picture(style.latent, Prompt(None, style.style), combined)],
    )
    with attach(bench.denoiser.modules, pair, gates) as gated:
        for _ in train(bench.denoiser, gated, *pictures, roles, config):
            pass
    return make_merged(pair, gates).fold()
