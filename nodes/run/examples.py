"""What LoRAs are trained on: the artist's pictures and their prompts as the engine's examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...duolora_core.errors import SettingsError
from ...duolora_core.files.picture_batch import check_pictures
from ...duolora_core.train_lora import Example
from ..host.denoiser import require_sdxl
from ..host.pictures import GRID
from ..host.prompts import encode
from .inputs import Inputs

MOST_ENLARGED = 4.0
"""A picture that is enlarged further teaches its pixels."""


def require_trainable(inputs: Inputs) -> None:
    """Refuses what no LoRA can be trained on, before any work is done.

    Raises:
        DuoLoraError: CLIP or VAE is missing, or the model is not of the SDXL family.
    """
    for name, what in (("CLIP", inputs.clip), ("VAE", inputs.vae)):
        if what is None:
            raise SettingsError(
                f"The connected {name} is empty: the checkpoint was saved without one. Load a {name} for SDXL with "
                "a loader of its own and connect that."
            )
    require_sdxl(inputs.model)


def make_examples(
    inputs: Inputs,
    pictures: Sequence[Tensor],
    conditioning: list[Any],
    latents: Sequence[Tensor] | None,
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
        _require_large_enough(batch, inputs.resolution, what)
    if latents is None:
        latents = inputs.encoded(pictures, inputs.vae, what.replace("_", " "))
    return list(map(Example, latents, inputs.conditions(conditioning, latents)))


def make_class_examples(
    inputs: Inputs, prompt: str, pictures: Sequence[Tensor], seed: int, latents: Sequence[Tensor] | None
) -> list[Example]:
    """Pictures of the class for prior preservation: the artist's, or the model's own; none without a prompt.

    Args:
        latents: of them, where they are there already

    Raises:
        SettingsError: there are pictures without a prompt, or as for `make_examples`.
    """
    if not prompt:
        if pictures:
            raise SettingsError(
                "class_pictures are connected, but class_prompt is empty. Write what they show without the trigger "
                "word, such as 'a photo of a dog'."
            )
        return []
    conditioning = encode(inputs.clip, prompt)
    if pictures:
        return make_examples(inputs, pictures, conditioning, latents, "class_pictures")
    if latents is None:
        # Another seed than the live sample's, or both would start from the same noise.
        latents = inputs.sampled({}, inputs.clip, conditioning, seed ^ 0xC1A55)
    return list(map(Example, latents, inputs.conditions(conditioning, latents)))


def _require_large_enough(batch: Tensor, resolution: int, what: str) -> None:
    height, width = batch.shape[1:3]
    largest = MOST_ENLARGED * math.sqrt(height * width)
    if resolution > largest:
        least = math.ceil(resolution / MOST_ENLARGED)
        lower = f", or lower the resolution to {int(largest) // GRID * GRID}" if largest >= GRID else ""
        raise SettingsError(
            f"A picture of {what} is too small: {width} x {height} pixels would be enlarged more than "
            f"{MOST_ENLARGED:.0f} times to train at {resolution}. Use one of at least {least} x {least}{lower}."
        )


def sizes_of(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """(h, w) of the latents, each size once."""
    return list(dict.fromkeys((each.latent.shape[1], each.latent.shape[2]) for each in examples))
