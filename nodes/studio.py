"""Where the training pictures of a merge come from: the artist's own, or samples of base + LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..duolora_core import Concept, LoraPair, Picture, UNetLayout, kohya_state_dict
from ..duolora_core.errors import SettingsError, TrainingError
from ..duolora_core.lora_file import all_finite
from ..duolora_core.merged import unet_part
from ..duolora_core.sampling import Guidance
from .host.pictures import SelfMade, encode_pictures, sample_latents, starting_noise
from .host.preview import LatentPreview
from .host.prompts import clip_with, condition, encode, text_tokens
from .live import LiveSample
from .sockets import LoadedConcept, MergeOptions


@dataclass(frozen=True)
class Studio:
    """What the pictures of both concepts are made with."""

    model: Any
    clip: Any
    vae: Any
    resolution: int
    options: MergeOptions

    def require_vae_for(self, *concepts: LoadedConcept) -> None:
        """Refuses pictures that nothing can encode, before any work is done."""
        for concept in concepts:
            if concept.pictures is not None and self.vae is None:
                raise SettingsError(
                    f"The {concept.role} LoRA has pictures, so a VAE is needed: connect the checkpoint's."
                )

    def pictures(
        self,
        content: LoadedConcept,
        style: LoadedConcept,
        placed: LoraPair,
        combined_prompt: str,
        seed: int,
        latents: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> tuple[list[Picture], list[Picture]]:
        """The training pictures of both concepts.

        Args:
            placed: both LoRAs as in their files
            latents: of the content and the style pictures, where they are there already
        """
        concepts = placed.content_concept, placed.style_concept
        combined = encode(clip_for(self.clip, concepts), combined_prompt)
        known = latents or (None, None)
        return (
            self._of_one(content, concepts[0], placed.layout, combined, seed, known[0]),
            # Another seed, else both LoRAs would start from the same noise and paint the same composition.
            self._of_one(style, concepts[1], placed.layout, combined, seed ^ 0x5EED, known[1]),
        )

    def live_sample(self, placed: LoraPair, combined_prompt: str, seed: int) -> LiveSample | None:
        """What a training on this studio's MODEL samples with while it goes on, if it does. `placed` as above."""
        if not self.options.sample_every:
            return None
        clip, options = clip_for(self.clip, (placed.content_concept, placed.style_concept)), self.options
        noise = starting_noise(self.model, self.resolution, seed)
        positive, negative = (
            condition(self.model, encode(clip, prompt), noise) for prompt in (combined_prompt, options.negative_prompt)
        )
        guidance = Guidance(positive, negative, options.self_made_cfg)
        return LiveSample(options.sample_every, guidance, noise, LatentPreview(self.model))

    def _of_one(
        self,
        loaded: LoadedConcept,
        concept: Concept,
        layout: UNetLayout,
        combined: list[Any],
        seed: int,
        latents: Sequence[Tensor] | None,
    ) -> list[Picture]:
        """The pictures of one concept, its own prompt encoded by its own text encoder part."""
        clip = clip_for(self.clip, [concept])
        own = encode(clip, loaded.prompt)
        if latents is None:
            latents = self._latents(loaded, concept, layout, clip, own, seed)
            _require_finite(latents, loaded)
        # The conditions hold the size, and all pictures of one concept have the same.
        conditions = [condition(self.model, prompt, latents[0]) for prompt in (own, combined)]
        return [Picture(latent, *conditions) for latent in latents]

    def _latents(
        self, loaded: LoadedConcept, concept: Concept, layout: UNetLayout, clip: Any, own: list[Any], seed: int
    ) -> list[Tensor]:
        """The artist's pictures encoded, or samples of base and LoRA with its own prompt; (channels, h, w) each."""
        if loaded.pictures is not None:
            return encode_pictures(self.model, self.vae, loaded.pictures, self.resolution)
        options = self.options
        how = SelfMade(options.self_made_count, options.self_made_steps, options.self_made_cfg, options.negative_prompt)
        state = kohya_state_dict(unet_part(concept, layout), torch.float32)
        negative = encode(clip, how.negative_prompt)
        return sample_latents(self.model, state, own, negative, self.resolution, how, seed)


def _require_finite(latents: Sequence[Tensor], loaded: LoadedConcept) -> None:
    """Refuses pictures that overflowed on their way here, where their cause is still known.

    Raises:
        TrainingError: names the concept, and what mends it.
    """
    if all(all_finite(latent) for latent in latents):
        return
    if loaded.pictures is None:
        raise TrainingError(
            f"The pictures that the model paints with the {loaded.role} LoRA {loaded.file.name} alone are not finite "
            f"numbers (they would be black). Lower its strength, {loaded.strength:g}, or run the model in bf16 or fp32 "
            "instead of fp16."
        )
    raise TrainingError(
        f"The VAE turns the {loaded.role} pictures into numbers that are not finite, as SDXL's own does in fp16. Start "
        "ComfyUI with --bf16-vae or --fp32-vae, or load a VAE that is made for fp16."
    )


def extent(content: Sequence[Picture], style: Sequence[Picture]) -> tuple[list[tuple[int, int]], int]:
    """(h, w) of the latents of both concepts, and the text tokens of the longest prompt."""
    sizes = [(pictures[0].latent.shape[1], pictures[0].latent.shape[2]) for pictures in (content, style)]
    return sizes, max(text_tokens(prompt) for each in (*content, *style) for prompt in (each.own, each.combined))


def clip_for(clip: Any, concepts: Sequence[Concept]) -> Any:
    """CLIP with the text encoder parts of all these concepts."""
    for concept in concepts:
        clip = clip_with(clip, concept.text, concept.file.name)
    return clip
