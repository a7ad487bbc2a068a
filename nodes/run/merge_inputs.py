"""Where the training pictures of a merge come from: the artist's own, or samples of base + LoRA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...duolora_core import LoraPair, Picture, PlacedLora, UNetLayout, kohya_state_dict
from ...duolora_core.errors import SettingsError, TrainingError
from ...duolora_core.lora.adapter_parts import all_finite
from ...duolora_core.lora.folded import unet_part
from ...duolora_core.model.sample import Guidance
from ..host.pictures import SampledImages, encode_pictures, sample_latents, starting_noise
from ..host.preview import LatentPreview
from ..host.prompts import clip_with, condition, encode, text_tokens
from .loaded_lora import LoadedLora
from .options import MergeOptions
from .preview_sampling import PreviewSampling


@dataclass(frozen=True)
class MergeInputs:
    """What the pictures of both LoRAs are made with."""

    model: Any
    clip: Any
    vae: Any
    resolution: int
    options: MergeOptions

    def vae_for(self, lora: LoadedLora) -> Any | None:
        """What encodes a LoRA's pictures: the artist's choice, or what the LoRA was trained with."""
        return lora.vae if self.vae is None else self.vae

    def require_vae_for(self, *loras: LoadedLora) -> None:
        """Refuses pictures that nothing can encode, before any work is done."""
        for lora in loras:
            if lora.pictures is not None and self.vae_for(lora) is None:
                raise SettingsError(f"The {lora.role} LoRA has pictures, so a VAE is needed: connect the checkpoint's.")

    def pictures(
        self,
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
        combined = None if combined_prompt is None else encode(clip_for(self.clip, loras), combined_prompt)
        return (
            self._of_one(content, loras[0], placed.layout, combined, seed, latents.get("content")),
            # Another seed, else both LoRAs would start from the same noise and paint the same composition.
            self._of_one(style, loras[1], placed.layout, combined, seed ^ 0x5EED, latents.get("style")),
        )

    def preview_sampling(self, placed: LoraPair, combined_prompt: str, seed: int) -> PreviewSampling | None:
        """What a training on this MODEL samples with while it goes on, if it does. `placed` as above."""
        clip, options = clip_for(self.clip, (placed.content_lora, placed.style_lora)), self.options
        prompts = combined_prompt, options.negative_prompt
        return preview_sampling(
            self.model, clip, prompts, options.sampled_images_cfg, options.sample_every, self.resolution, seed
        )

    def _of_one(
        self,
        loaded: LoadedLora,
        lora: PlacedLora,
        layout: UNetLayout,
        combined: list[Any] | None,
        seed: int,
        latents: Sequence[Tensor] | None,
    ) -> list[Picture]:
        """The pictures of one LoRA, its own prompt encoded by its own text encoder part."""
        clip = clip_for(self.clip, [lora])
        own = encode(clip, loaded.prompt)
        if latents is None:
            latents = self._latents(loaded, lora, layout, clip, own, seed)
            _require_finite(latents, loaded)
        # The conditions hold the size; pictures of one size share theirs.
        sizes = {latent.shape: latent for latent in latents}
        conditions = {
            size: [None if prompt is None else condition(self.model, prompt, latent) for prompt in (own, combined)]
            for size, latent in sizes.items()
        }
        return [Picture(latent, *conditions[latent.shape]) for latent in latents]

    def _latents(
        self, loaded: LoadedLora, lora: PlacedLora, layout: UNetLayout, clip: Any, own: list[Any], seed: int
    ) -> list[Tensor]:
        """The artist's pictures encoded, or samples of base and LoRA with its own prompt; (channels, h, w) each."""
        if loaded.pictures is not None:
            vae = self.vae_for(loaded)
            batches = [encode_pictures(self.model, vae, batch, self.resolution) for batch in loaded.pictures]
            return [latent for batch in batches for latent in batch]
        options = self.options
        how = SampledImages(
            options.sampled_images_count,
            options.sampled_images_steps,
            options.sampled_images_cfg,
            options.negative_prompt,
        )
        state = kohya_state_dict(unet_part(lora, layout), torch.float32)
        negative = encode(clip, how.negative_prompt)
        return sample_latents(self.model, state, own, negative, self.resolution, how, seed)


def _require_finite(latents: Sequence[Tensor], loaded: LoadedLora) -> None:
    """Refuses pictures that overflowed on their way here, where their cause is still known.

    Raises:
        TrainingError: names the LoRA, and how to fix it.
    """
    if all(all_finite(latent) for latent in latents):
        return
    if loaded.pictures is None:
        raise TrainingError(
            f"The pictures that the model paints with the {loaded.role} LoRA {loaded.file.name} alone are not finite "
            f"numbers (they would be black). Lower its strength, {loaded.strength:g}, or run the model in bf16 or fp32 "
            "instead of fp16."
        )
    raise overflowing_vae(f"{loaded.role} pictures")


def overflowing_vae(what: str) -> TrainingError:
    """The error for pictures that a VAE made of numbers that are not finite."""
    return TrainingError(
        f"The VAE turns the {what} into numbers that are not finite, as SDXL's own does in fp16. Start ComfyUI with "
        "--bf16-vae or --fp32-vae, or load a VAE that is made for fp16."
    )


def extent(content: Sequence[Picture], style: Sequence[Picture]) -> tuple[list[tuple[int, int]], int]:
    """(h, w) of the latents of both LoRAs, the largest of each, and the text tokens of the longest prompt in use.

    Where a content and a style picture have one size, so that a forward may hold both, both are the largest.
    """
    sides = [{(each.latent.shape[1], each.latent.shape[2]) for each in side} for side in (content, style)]
    whole = [sides[0] | sides[1]] * 2 if sides[0] & sides[1] else sides
    prompts = [prompt for each in (*content, *style) for prompt in (each.own, each.combined) if prompt is not None]
    return [max(side, key=math.prod) for side in whole], max(map(text_tokens, prompts))


def preview_sampling(
    model: Any, clip: Any, prompts: tuple[str, str], cfg: float, every: int, resolution: int, seed: int
) -> PreviewSampling | None:
    """What a training samples with every so many steps, None for every 0; the prompts are positive and negative."""
    if not every:
        return None
    noise = starting_noise(model, resolution, seed)
    positive, negative = (condition(model, encode(clip, prompt), noise) for prompt in prompts)
    return PreviewSampling(every, Guidance(positive, negative, cfg), noise, LatentPreview(model))


def clip_for(clip: Any, loras: Sequence[PlacedLora]) -> Any:
    """CLIP with the text encoder parts of all these LoRAs."""
    for lora in loras:
        clip = clip_with(clip, lora.text, lora.file.name, lora.text_offsets)
    return clip
