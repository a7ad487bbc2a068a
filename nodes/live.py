"""Live samples: every few steps a small picture of what has been trained so far, shown with the loss curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from ..duolora_core import Denoiser
from ..duolora_core.evaluation import Networks
from ..duolora_core.gated_lora import Row
from ..duolora_core.sampling import Guidance, sample
from .host.memory import is_out_of_memory, release

STEPS = 10
"""Enough to see subject and style; a finished picture is what Apply Merged LoRA is for."""


@dataclass(frozen=True)
class LiveSample:
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


class Sampler:
    """Paints the live samples of one training, if there are to be any and as long as memory lasts."""

    def __init__(self, live: LiveSample | None, denoiser: Denoiser, networks: Networks, row: Row, notes: list[str]):
        """
        Args:
            networks: the attached model; `row` says which of its networks paints
        """
        self._live, self._denoiser, self._networks, self._notes = live, denoiser, networks, notes
        self._row: Row = row

    def __call__(self, step: int) -> Image | None:
        """The picture after this training step, if one is due; the training is not changed by it in any way.

        Raises the host's own interrupt exception when the artist pressed Cancel.
        """
        live = self._live
        if live is None or step % live.every:
            return None
        try:
            return live.preview(sample(self._denoiser, self._networks, self._row, live.guidance, live.noise, STEPS))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._live = None  # a picture is not worth a training
        release()
        self._notes.append(f"live samples ended at step {step}: memory ran out")
        return None
