"""How a ComfyUI with a card is set up, as far as it decides where tensors lie and in which dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vram = Literal["NORMAL_VRAM", "LOW_VRAM", "HIGH_VRAM"]


@dataclass(frozen=True)
class HostSettings:
    """The defaults are those of an ordinary start.

    Attributes:
        vram: the host's name of what it was told or has found
        on_card: whether intermediate results stay on the card (--gpu-only)
        dynamic: whether weights are streamed to the card layer by layer, on hosts that can
        bf16: started with --bf16-unet
    """

    vram: Vram = "NORMAL_VRAM"
    on_card: bool = False
    dynamic: bool = False
    bf16: bool = False
