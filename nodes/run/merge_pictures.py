"""The training pictures of a merge, the artist's own or samples of base + LoRA, and what its training is known by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...duolora_core import Gates, LoraStack, MergeConfig, Picture, PlacedLora, UNetLayout, kohya_state_dict
from ...duolora_core.baselines.zip_lora import ZipLoraConfig
from ...duolora_core.errors import SettingsError, TrainingError
from ...duolora_core.lora.adapter_parts import all_finite
from ...duolora_core.lora.folded import unet_part
from ...duolora_core.merge.stack import Side, label
from ...duolora_core.merge.teachers import by_lora
from ...duolora_core.merge.trainer import gates_at_start
from ..host.prompts import clip_with, encode, text_tokens
from .checkpoint import Checkpointer
from .inputs import Inputs
from .loaded_lora import LoadedLora


def vae_for(inputs: Inputs, lora: LoadedLora) -> Any | None:
    """What encodes a LoRA's pictures: the artist's choice, or what the LoRA was trained with."""
    return lora.vae if inputs.vae is None else inputs.vae


def require_vae_for(inputs: Inputs, content: LoadedLora, style: LoadedLora) -> None:
    """Refuses pictures that nothing can encode, before any work is done."""
    for lora in (*content.chain, *style.chain):
        if lora.pictures is not None and vae_for(inputs, lora) is None:
            raise SettingsError(f"The {lora.role} LoRA has pictures, so a VAE is needed: connect the checkpoint's.")


def merge_pictures(
    inputs: Inputs,
    content: LoadedLora,
    style: LoadedLora,
    placed: LoraStack,
    combined_prompts: Sequence[str] | None,
    seed: int,
    latents: Mapping[str, Sequence[Tensor]],
) -> tuple[list[Picture], list[Picture]]:
    """The training pictures of all content and of all style LoRAs.

    Args:
        placed: the LoRAs as in their files
        combined_prompts: one for each content LoRA; None where the training has no use for them
        latents: {label: of its pictures}, where they are there already
    """
    combined = [encode(clip_for(inputs.clip, placed.loras), prompt) for prompt in combined_prompts or ()]
    contents: list[Picture] = []
    styles: list[Picture] = []
    for number, (loaded, lora) in enumerate(zip(content.chain, placed.contents, strict=True)):
        own, found = _own(
            inputs, loaded, lora, placed.layout, _seed(seed, number), latents.get(label("content", number))
        )
        together = inputs.conditions(combined[number], found) if combined else [None] * len(found)
        contents += [Picture(*each, number) for each in zip(found, own, together, strict=True)]
    for number, (loaded, lora) in enumerate(zip(style.chain, placed.styles, strict=True)):
        # Another seed, else two LoRAs would start from the same noise and paint the same composition.
        start = _seed(seed ^ 0x5EED, number)
        own, found = _own(inputs, loaded, lora, placed.layout, start, latents.get(label("style", number)))
        every = [inputs.conditions(each, found) for each in combined] or [[None] * len(found)]
        styles += [
            Picture(latent, condition, together[0], number, together[1:])
            for latent, condition, *together in zip(found, own, *every, strict=True)
        ]
    return contents, styles


def _seed(seed: int, number: int) -> int:
    return seed ^ (number * 0x9E3779B9)


def _own(
    inputs: Inputs,
    loaded: LoadedLora,
    lora: PlacedLora,
    layout: UNetLayout,
    seed: int,
    latents: Sequence[Tensor] | None,
) -> tuple[list[Any], Sequence[Tensor]]:
    """The conditions of a LoRA's own prompt, encoded by its own text encoder part, and the latents of its pictures.

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
    return inputs.conditions(own, latents), latents


def by_label(content: Sequence[Picture], style: Sequence[Picture]) -> dict[str, list[Picture]]:
    """{label: pictures} of each LoRA."""
    sides: tuple[tuple[Side, Sequence[Picture]], ...] = ("content", content), ("style", style)
    return {label(side, number): own for side, pictures in sides for number, own in enumerate(by_lora(pictures))}


def combined_prompts(written: str, content: LoadedLora, style: LoadedLora) -> list[str]:
    """The combined prompt of each content LoRA: one for all, or a line for each; empty: what the loaders say, joined.

    Raises:
        SettingsError: there are several lines, but not one for each.
    """
    contents, styles = content.chain, style.chain
    if not written.strip():
        return [", ".join([each.prompt, *(other.prompt for other in styles)]) for each in contents]
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    if len(contents) == 1 or len(lines) == 1:
        return [written.strip()] * len(contents)
    if len(lines) != len(contents):
        raise SettingsError(
            f"The combined prompt has {len(lines)} lines for {len(contents)} content LoRAs. Write one line for each, "
            "in the order of their loaders, or one for all."
        )
    return lines


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
