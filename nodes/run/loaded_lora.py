"""A LoRA as a loader or a trainer hands it to other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ...duolora_core.lora.read import LoraFile


@dataclass(frozen=True)
class LoadedLora:
    """A content or style LoRA as its loader, or the node that trained it, hands it on.

    Attributes:
        pictures: IMAGE batches (count, h, w, 3) in [0, 1], each of one size; None: the merge makes its own
        vae: encodes the pictures where the merge has none; None from a loader
    """

    role: Literal["content", "style"]
    file: LoraFile
    prompt: str
    strength: float
    pictures: Sequence[Tensor] | None
    vae: Any = None

    def __str__(self) -> str:
        """What the host shows of a failed node's inputs; every tensor of a LoRA printed would take half a minute."""
        return f"{self.role} LoRA {self.file.name} at strength {self.strength:g}"
