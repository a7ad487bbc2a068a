"""The training pictures of a merge, the artist's own or samples of base + LoRA, and what its training is known by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...duolora_core import Gates, LoraPair, MergeConfig, Picture, PlacedLora, UNetLayout, kohya_state_dict
from ...duolora_core.baselines.zip_lora import ZipLoraConfig
from ...duolora_core.errors import SettingsError, TrainingError
from ...duolora_core.lora.adapter_parts import all_finite
from ...duolora_core.lora.folded import unet_part
from ...duolora_core.merge.trainer import gates_at_start
from ..host.prompts import clip_with, encode, text_tokens
from .checkpoint import Checkpointer
from .inputs import Inputs
from .loaded_lora import LoadedLora


def vae_for(inputs: Inputs, lora: LoadedLora) -> Any | None:
    """What encodes a LoRA's pictures: the artist's choice, or what the LoRA was trained with."""
    return lora.vae if inputs.vae is None else inputs.vae


def require_vae_for(inputs: Inputs, *loras: LoadedLora) -> None:
    """Refuses pictures that nothing can encode, before any work is done."""
    for lora in loras:
        if lora.pictures is not None and vae_for(inputs, lora) is None:
            raise SettingsError(f"The {lora.role} LoRA has pictures, so a VAE is needed: connect the checkpoint's.")


def merge_pictures(
    inputs: Inputs,
    content: LoadedLora,
    style: LoadedLora,
    placed: LoraPair,
    combined_prompt: str | None,
    seed: int,
    latents: Mapping[str, Sequence[Tensor]],
) -> tuple[list[Picture], list[Picture]]:
    """The training pictures of both LoRAs.

    Args:
        placed: both LoRAs as in their files
        combined_prompt: None where the training has no use for it
        latents: {role: of its pictures}, where they are there already
    """
    loras = placed.content_lora, placed.style_lora
    combined = None if combined_prompt is None else encode(clip_for(inputs.clip, loras), combined_prompt)
    return (
        _pictures_of(inputs, content, loras[0], placed.layout, combined, seed, latents.get("content")),
        # Another seed, else both LoRAs would start from the same noise and paint the same composition.
        _pictures_of(inputs, style, loras[1], placed.layout, combined, seed ^ 0x5EED, latents.get("style")),
    )


def _pictures_of(
    inputs: Inputs,
    loaded: LoadedLora,
    lora: PlacedLora,
    layout: UNetLayout,
    combined: list[Any] | None,
    seed: int,
    latents: Sequence[Tensor] | None,
) -> list[Picture]:
    """The pictures of one LoRA, its own prompt encoded by its own text encoder part.

    Raises:
        TrainingError: they overflowed on their way here, where their cause is still known.
    """
    clip = clip_for(inputs.clip, [lora])
    own = encode(clip, loaded.prompt)
    if latents is None and loaded.pictures is not None:
        latents = inputs.encoded(loaded.pictures, vae_for(inputs, loaded), f"{loaded.role} pictures")
    elif latents is None:
        latents = inputs.sampled(kohya_state_dict(unet_part(lora, layout), torch.float32), clip, own, seed)
        if not all(all_finite(latent) for latent in latents):
            raise TrainingError(
                f"The pictures that the model paints with the {loaded.role} LoRA {loaded.file.name} alone are not "
                f"finite numbers (they would be black). Lower its strength, {loaded.strength:g}, or run the model in "
                "bf16 or fp32 instead of fp16."
            )
    combined_conditions = [None] * len(latents) if combined is None else inputs.conditions(combined, latents)
    return [Picture(*each) for each in zip(latents, inputs.conditions(own, latents), combined_conditions, strict=True)]


def merge_checkpointer(
    inputs: Inputs, loras: Sequence[LoadedLora], gates: Gates, config: MergeConfig | ZipLoraConfig, **decides: Any
) -> Checkpointer:
    """The checkpointer of a training of gates on these LoRAs; `decides` as in `Checkpointer`."""
    vaes = [vae_for(inputs, lora) for lora in loras if lora.pictures is not None]
    own = {"loras": [lora.decides for lora in loras], "config": config}
    return Checkpointer(inputs, gates_at_start(gates), config.steps, vaes, len(vaes) < len(loras), **own, **decides)


def extent(content: Sequence[Picture], style: Sequence[Picture]) -> tuple[list[tuple[int, int]], int]:
    """(h, w) of the latents of both LoRAs, the largest of each, and the text tokens of the longest prompt in use.

    Where a content and a style picture have one size, so that a forward may hold both, both are the largest.
    """
    sides = [{(each.latent.shape[1], each.latent.shape[2]) for each in side} for side in (content, style)]
    whole = [sides[0] | sides[1]] * 2 if sides[0] & sides[1] else sides
    prompts = [prompt for each in (*content, *style) for prompt in (each.own, each.combined) if prompt is not None]
    return [max(side, key=math.prod) for side in whole], max(map(text_tokens, prompts))


def clip_for(clip: Any, loras: Sequence[PlacedLora]) -> Any:
    """CLIP with the text encoder parts of all these LoRAs."""
    for lora in loras:
        clip = clip_with(clip, lora.text, lora.file.name, lora.text_offsets)
    return clip
