"""What a training from pictures is given: pictures and prompts as the engine's examples, on one MODEL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...duolora_core.errors import SettingsError
from ...duolora_core.files.picture_batch import check_pictures
from ...duolora_core.lora.adapter_parts import all_finite
from ...duolora_core.train_lora import Example
from ..host.denoiser import require_sdxl
from ..host.pictures import GRID, encode_pictures, sample_latents
from ..host.prompts import condition, encode
from .merge_inputs import overflowing_vae, preview_sampling
from .options import TrainOptions
from .preview_sampling import PreviewSampling

MOST_ENLARGED = 4.0
"""A picture that is enlarged further teaches its pixels."""


@dataclass(frozen=True)
class TrainingInputs:
    """What examples are made with."""

    model: Any
    clip: Any
    vae: Any
    resolution: int
    options: TrainOptions

    def require_all(self) -> None:
        """Refuses what cannot be trained on, before any work is done.

        Raises:
            DuoLoraError: CLIP or VAE is missing, or the model is not of the SDXL family.
        """
        for name, what in (("CLIP", self.clip), ("VAE", self.vae)):
            if what is None:
                raise SettingsError(
                    f"The connected {name} is empty: the checkpoint was saved without one. Load a {name} for SDXL with "
                    "a loader of its own and connect that."
                )
        require_sdxl(self.model)

    def examples(
        self,
        pictures: Sequence[Tensor],
        conditioning: list[Any],
        latents: Sequence[Tensor] | None = None,
        what: str = "pictures",
    ) -> list[Example]:
        """Every picture of IMAGE batches (count, h, w, 3) under one prompt, resized without cropping or flipping.

        Args:
            conditioning: CONDITIONING of the prompt
            latents: of the pictures, where they are there already
            what: the input's name

        Raises:
            SettingsError: there is no picture, or one cannot be trained on.
            TrainingError: the VAE makes numbers of them that are not finite.
        """
        if not sum(len(batch) for batch in pictures):
            raise SettingsError(f"There is no picture to train on: connect 1 to 30 pictures to {what}.")
        for batch in pictures:
            check_pictures(batch, what)
            self._require_large_enough(batch, what)
        if latents is None:
            batches = [encode_pictures(self.model, self.vae, batch, self.resolution) for batch in pictures]
            latents = [latent for batch in batches for latent in batch]
        if not all(all_finite(latent) for latent in latents):
            raise overflowing_vae(what.replace("_", " "))
        return self._under_one_prompt(latents, conditioning)

    def class_examples(
        self, prompt: str, pictures: Sequence[Tensor], seed: int, latents: Sequence[Tensor] | None = None
    ) -> list[Example]:
        """Pictures of the class for prior preservation: the artist's, or the model's own; none without a prompt.

        Args:
            latents: of them, where they are there already

        Raises:
            SettingsError: there are pictures without a prompt, or as for `examples`.
        """
        if not prompt:
            if pictures:
                raise SettingsError(
                    "class_pictures are connected, but class_prompt is empty. Write what they show without the trigger "
                    "word, such as 'a photo of a dog'."
                )
            return []
        conditioning = encode(self.clip, prompt)
        if pictures:
            return self.examples(pictures, conditioning, latents, "class_pictures")
        if latents is None:
            how = self.options.sampled_images
            negative = encode(self.clip, how.negative_prompt)
            # Another seed than the live sample's, or both would start from the same noise.
            latents = sample_latents(self.model, {}, conditioning, negative, self.resolution, how, seed ^ 0xC1A55)
        return self._under_one_prompt(latents, conditioning)

    def preview_sampling(self, prompt: str, seed: int) -> PreviewSampling | None:
        """What a training under this prompt samples with while it goes on, if it does."""
        options = self.options
        prompts = options.sample_prompt or prompt, options.sampled_images.negative_prompt
        return preview_sampling(
            self.model, self.clip, prompts, options.sampled_images.cfg, options.sample_every, self.resolution, seed
        )

    def _under_one_prompt(self, latents: Sequence[Tensor], conditioning: list[Any]) -> list[Example]:
        """The conditions hold the size; pictures of one size share theirs."""
        sizes = {latent.shape: latent for latent in latents}
        conditions = {size: condition(self.model, conditioning, latent) for size, latent in sizes.items()}
        return [Example(latent, conditions[latent.shape]) for latent in latents]

    def _require_large_enough(self, batch: Tensor, what: str) -> None:
        height, width = batch.shape[1:3]
        largest = MOST_ENLARGED * math.sqrt(height * width)
        if self.resolution > largest:
            least = math.ceil(self.resolution / MOST_ENLARGED)
            lower = f", or lower the resolution to {int(largest) // GRID * GRID}" if largest >= GRID else ""
            raise SettingsError(
                f"A picture of {what} is too small: {width} x {height} pixels would be enlarged more than "
                f"{MOST_ENLARGED:.0f} times to train at {self.resolution}. Use one of at least "
                f"{least} x {least}{lower}."
            )


def sizes_of(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """(h, w) of the latents, each size once."""
    return list(dict.fromkeys((each.latent.shape[1], each.latent.shape[2]) for each in examples))
