"""Preview sampling: every few steps a small picture of what has been trained so far, shown with the loss curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from ...duolora_core import Denoiser
from ...duolora_core.model.branches import Branch
from ...duolora_core.model.evaluate import Networks
from ...duolora_core.model.sample import Guidance, sample
from ..host.memory import is_out_of_memory, release

STEPS = 10
"""Enough to see subject and style; a finished picture is what Apply Merged LoRA is for."""


@dataclass(frozen=True)
class PreviewSampling:
    """What is painted, and when.

    Attributes:
        every: training steps from one picture to the next
        guidance: the prompt and the negative one
        noise: (channels, h, w), the same for all pictures, so that they differ by what is trained alone
        preview: makes a picture of a latent
    """

    every: int
    guidance: Guidance
    noise: Tensor
    preview: Callable[[Tensor], Image]


class PreviewSampler:
    """Paints the live samples of one training, if there are to be any and as long as memory lasts."""

    def __init__(
        self, settings: PreviewSampling | None, denoiser: Denoiser, networks: Networks, branch: Branch, notes: list[str]
    ):
        """
        Args:
            networks: the attached model; `branch` says which of its networks paints
        """
        self._settings, self._denoiser, self._networks, self._notes = settings, denoiser, networks, notes
        self._branch: Branch = branch

    def __call__(self, step: int) -> Image | None:
        """The picture after this training step, if one is due; the training is not changed by it in any way.

        Raises the host's own interrupt exception when the artist pressed Cancel.
        """
        settings = self._settings
        if settings is None or step % settings.every:
            return None
        try:
            return settings.preview(
                sample(self._denoiser, self._networks, self._branch, settings.guidance, settings.noise, STEPS)
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._settings = None  # a picture is not worth a training
        release()
        self._notes.append(f"live samples ended at step {step}: memory ran out")
        return None
