"""What every training is given: MODEL, CLIP and VAE, and the latents and conditions that are made with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...duolora_core.errors import TrainingError
from ...duolora_core.lora.adapter_parts import all_finite
from ...duolora_core.model.sample import Guidance
from ..host.denoiser import Limits
from ..host.pictures import encode_pictures, sample_latents, starting_noise
from ..host.preview import LatentPreview
from ..host.prompts import condition, encode
from .options import RunOptions
from .preview_sampling import PreviewSampling


@dataclass(frozen=True)
class Inputs:
    """What a node was given beside its LoRAs or pictures. A CONDITIONING is a prompt as the host encodes it.

    Attributes:
        vae: None where the artist connected none
        resolution: the side in pixels of a square of equal area
    """

    model: Any
    clip: Any
    vae: Any
    resolution: int
    options: RunOptions

    def limits(self, micro_batch: int) -> Limits:
        """What the artist decided about memory."""
        return Limits(micro_batch, self.options.checkpointing, self.options.compute)

    def encoded(self, pictures: Sequence[Tensor], vae: Any, what: str) -> list[Tensor]:
        """(channels, h, w) latents of every picture of IMAGE batches (count, h, w, 3).

        Raises:
            TrainingError: the VAE makes numbers of them that are not finite; `what` says whose pictures they are.
        """
        latents = [latent for batch in pictures for latent in encode_pictures(self.model, vae, batch, self.resolution)]
        if not all(all_finite(latent) for latent in latents):
            raise TrainingError(
                f"The VAE turns the {what} into numbers that are not finite, as SDXL's own does in fp16. Start ComfyUI "
                "with --bf16-vae or --fp32-vae, or load a VAE that is made for fp16."
            )
        return latents

    def sampled(self, lora: Mapping[str, Tensor], clip: Any, positive: list[Any], seed: int) -> list[Tensor]:
        """(channels, h, w) latents that MODEL generates with a LoRA, a state dict, for a CONDITIONING."""
        how = self.options.sampled_images
        negative = encode(clip, how.negative_prompt)
        return sample_latents(self.model, lora, positive, negative, self.resolution, how, seed)

    def conditions(self, conditioning: list[Any], latents: Sequence[Tensor]) -> list[Any]:
        """The condition of each latent; it holds the size, so latents of one size share theirs."""
        sizes = {latent.shape: latent for latent in latents}
        conditions = {size: condition(self.model, conditioning, latent) for size, latent in sizes.items()}
        return [conditions[latent.shape] for latent in latents]

    def preview_sampling(self, clip: Any, prompt: str, seed: int) -> PreviewSampling | None:
        """What a training samples with while it goes on, if it does."""
        every, how = self.options.sample_every, self.options.sampled_images
        if not every:
            return None
        prompts = self.options.sample_prompt or prompt, how.negative_prompt
        noise = starting_noise(self.model, self.resolution, seed)
        positive, negative = (condition(self.model, encode(clip, each), noise) for each in prompts)
        return PreviewSampling(every, Guidance(positive, negative, how.cfg), noise, LatentPreview(self.model))
