"""What travels between our nodes, and the socket types that carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from comfy_api.latest import io
from torch import Tensor

from ..duolora_core.config import MergeConfig
from ..duolora_core.gates import BlockGates, Gates
from ..duolora_core.lora_file import LoraFile
from ..duolora_core.merged import MergedLora
from ..duolora_core.pair import LoraPair

CATEGORY = "DuoLoRA"

ConceptSocket = io.Custom("DUOLORA_CONCEPT")
OptionsSocket = io.Custom("DUOLORA_OPTIONS")
MergedSocket = io.Custom("DUOLORA_MERGED")
LoraModelSocket = io.Custom("LORA_MODEL")
LossMapSocket = io.Custom("LOSS_MAP")


@dataclass(frozen=True)
class LoadedConcept:
    """A content or style LoRA as its loader hands it on.

    Attributes:
        pictures: IMAGE batch (count, h, w, 3) in [0, 1], or None: the merge makes its own
    """

    role: Literal["content", "style"]
    file: LoraFile
    prompt: str
    strength: float
    pictures: Tensor | None

    def __str__(self) -> str:
        """What the host shows of a failed node's inputs; every tensor of a LoRA printed would take half a minute."""
        return f"{self.role} LoRA {self.file.name} at strength {self.strength:g}"


@dataclass(frozen=True)
class MergeOptions:
    """The rarely used settings, with the defaults that hold when no options node is connected.

    Attributes:
        config: everything of the engine; the merge node's own widgets replace their part unless `is_preset`
        is_preset: the config is one of the published presets and is used whole
        most_steps: what the merge node's steps are cut to; None: as many as it says
        compute, checkpointing: see `Limits`
        sample_every: training steps from one live sample to the next; 0: none
        resume: keep trainings on disk until they end, and go on with them
    """

    config: MergeConfig = field(default_factory=MergeConfig)
    is_preset: bool = False
    most_steps: int | None = None
    custom_prior: str = ""
    compute: str = "as loaded"
    checkpointing: bool | None = None
    self_made_count: int = 4
    self_made_steps: int = 20
    self_made_cfg: float = 6.0
    negative_prompt: str = ""
    sample_every: int = 0
    resume: bool = True


@dataclass(frozen=True)
class MergeResult:
    """A finished merge and what is known of it. `pair` and `gates` are None for combinations and turned blocks."""

    merged: MergedLora
    trigger_phrase: str
    prediction: str
    sources: Sequence[str]
    notes: Sequence[str] = ()
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    blocks: Sequence[BlockGates] = ()
    pair: LoraPair | None = None
    gates: Gates | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """As of `LoadedConcept`."""
        return f"merge of {' and '.join(self.sources)}"
