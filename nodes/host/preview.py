"""A latent as a small picture, by whatever the host previews its own sampling with."""

from __future__ import annotations

from typing import Any

import latent_preview
import torch
from PIL.Image import Image
from torch import Tensor

from ...duolora_core.errors import ModelMismatchError


class LatentPreview:
    """TAESD where the host is set to it and has it; else the host's linear map from latents to colours.

    A host without previews (its default in some versions) has that map all the same, so what was asked for is shown.
    """

    def __init__(self, patcher: Any):
        """
        Raises:
            ModelMismatchError: the host knows no colours for this model's latents.
        """
        latent_format = patcher.model.latent_format
        self._previewer: Any = latent_preview.get_previewer(patcher.load_device, latent_format)
        if self._previewer is None:
            factors, bias = latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
            if factors is None:
                raise ModelMismatchError(
                    "ComfyUI has no preview for this model's latents, so it cannot show live samples. Set sample_every "
                    "to 0 on Merge Options."
                )
            self._previewer = latent_preview.Latent2RGBPreviewer(factors, bias)

    def __call__(self, latent: Tensor) -> Image:
        """The picture of one latent, (channels, h, w), as the UNet sees it."""
        with torch.no_grad():
            return self._previewer.decode_latent_to_preview(latent[None])
