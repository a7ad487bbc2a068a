"""A LoRA as a loader or a trainer hands it to other nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from ...duolora_core.lora.adapters import PlainLora
from ...duolora_core.lora.match import RANK_LIMIT
from ...duolora_core.lora.read import LoraFile


@dataclass(frozen=True)
class LoadedLora:
    """A content or style LoRA as its loader, or the node that trained it, hands it on.

    Attributes:
        pictures: IMAGE batches (count, h, w, 3) in [0, 1], each of one size; None: the merge makes its own
        vae: encodes the pictures where the merge has none; None from a loader
        text_strength: of the text encoders' part; None: as `strength`
        adapter_rank: at most, of what an adapter that is not low-rank by itself becomes
        others: LoRAs of the same role that are merged with it and come before it; these have no others themselves
    """

    role: Literal["content", "style"]
    file: LoraFile
    prompt: str
    strength: float
    pictures: Sequence[Tensor] | None
    vae: Any = None
    text_strength: float | None = None
    adapter_rank: int = RANK_LIMIT
    others: tuple[LoadedLora, ...] = ()

    @property
    def chain(self) -> tuple[LoadedLora, ...]:
        """All LoRAs that come through one socket, each by itself."""
        return (*self.others, replace(self, others=()))

    @property
    def placing(self) -> Mapping[str, Any]:
        """What decides how it is placed on a model beside its file and strength, as plain JSON data; empty as a
        rule."""
        decides: dict[str, Any] = {}
        if self.text_strength not in (None, self.strength):
            decides["text_strength"] = self.text_strength
        if self.file.beside is not None:
            decides["beside"] = dict(self.file.beside)
        if self.file.kinds.keys() - {PlainLora.kind}:
            decides["adapter_rank"] = self.adapter_rank
        return decides

    @property
    def decides(self) -> Mapping[str, Any]:
        """All of it that decides what a merge trains, its pictures included."""
        own = {"role": self.role, "sha256": self.file.sha256, "prompt": self.prompt, "strength": self.strength}
        return {**own, **self.placing, "pictures": self.pictures}

    def __str__(self) -> str:
        """What the host shows of a failed node's inputs; every tensor of a LoRA printed would take half a minute."""
        own = f"{self.role} LoRA {self.file.name} at strength {self.strength:g}"
        return ", ".join([*map(str, self.others), own])
