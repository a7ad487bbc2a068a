"""A finished merge as it travels to other nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ...duolora_core.lora.save import kohya_state_dict
from ...duolora_core.merge.gates import Gates
from ...duolora_core.merge.merged import MergedLora
from ...duolora_core.merge.stack import LoraStack
from ...duolora_core.merge.statistics import BlockGates


@dataclass(frozen=True)
class MergeResult:
    """A finished merge and what is known of it.

    `stack` and `gates` are None where there are no masks: combinations, scaled blocks or LoRAs, and LoRAs trained from
    pictures.
    """

    merged: MergedLora
    trigger_phrase: str
    prediction: str
    sources: Sequence[str]
    notes: Sequence[str] = ()
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    blocks: Sequence[BlockGates] = ()
    stack: LoraStack | None = None
    gates: Gates | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def lora(self) -> Mapping[str, Tensor]:
        """The merge as an ordinary LoRA, both strengths 1. Made once: whoever hands it out shares its memory."""
        return ordinary_lora(self.merged, 1.0, 1.0)

    def __str__(self) -> str:
        """As of `LoadedLora`."""
        return f"merge of {' and '.join(self.sources)}"


def ordinary_lora(merged: MergedLora, content_strength: float, style_strength: float) -> Mapping[str, Tensor]:
    """A merge at these strengths as the state dict of an ordinary LoRA, in fp16.

    Raises:
        LoraFileError: a value is too large for fp16.
    """
    return kohya_state_dict(merged.fold(content_strength, style_strength))
