"""Where the training pictures of a merge come from: the artist's own, or samples of base + LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..duolora_core import Concept, Picture, UNetLayout, kohya_state_dict
from ..duolora_core.merged import FoldedLora
from .host.pictures import SelfMade, encode_pictures, sample_latents
from .host.prompts import clip_with, condition, encode
from .sockets import LoadedConcept, MergeOptions


@dataclass(frozen=True)
class Studio:
    """What both concepts share while their pictures are made. `combined` is CONDITIONING of the combined prompt."""

    model: Any
    clip: Any
    vae: Any
    layout: UNetLayout
    combined: list[Any]
    resolution: int
    options: MergeOptions

    def pictures(self, loaded: LoadedConcept, concept: Concept, seed: int) -> list[Picture]:
        """The training pictures of one concept, its own prompt encoded by its own text encoder part."""
        clip = clip_for(self.clip, [concept])
        own = encode(clip, loaded.prompt)
        if loaded.pictures is not None:
            latents = encode_pictures(self.model, self.vae, loaded.pictures, self.resolution)
        else:
            options = self.options
            how = SelfMade(
                options.self_made_count, options.self_made_steps, options.self_made_cfg, options.negative_prompt
            )
            state = kohya_state_dict(self._alone(concept), torch.float32)
            negative = encode(clip, how.negative_prompt)
            latents = sample_latents(self.model, state, own, negative, self.resolution, how, seed)
        # The conditions hold the size, and all pictures of one concept have the same.
        conditions = [condition(self.model, prompt, latents[0]) for prompt in (own, self.combined)]
        return [Picture(latent, *conditions) for latent in latents]

    def _alone(self, concept: Concept) -> FoldedLora:
        """One concept as an ordinary LoRA for the UNet."""
        names = {*concept.layers, *(name for name, _ in concept.offsets)}
        shapes = {name: self.layout.layers[name].shape for name in names}
        return FoldedLora(concept.layers, {}, concept.offsets, shapes, 0.0)


def clip_for(clip: Any, concepts: Sequence[Concept]) -> Any:
    """CLIP with the text encoder parts of all these concepts."""
    for concept in concepts:
        clip = clip_with(clip, concept.text, concept.file.name)
    return clip
