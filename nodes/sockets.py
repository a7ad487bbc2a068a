"""What travels between our nodes, and the socket types that carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from comfy_api.latest import io
from torch import Tensor

from ..duolora_core.config import MergeConfig
from ..duolora_core.from_pictures import LearnConfig, LoraForm, UnzipConfig
from ..duolora_core.gates import BlockGates, Gates
from ..duolora_core.lora_file import LoraFile
from ..duolora_core.lora_save import kohya_state_dict
from ..duolora_core.merged import MergedLora
from ..duolora_core.pair import LoraPair
from .host.pictures import SelfMade

CATEGORY = "DuoLoRA"

ConceptSocket = io.Custom("DUOLORA_CONCEPT")
OptionsSocket = io.Custom("DUOLORA_OPTIONS")
TrainOptionsSocket = io.Custom("DUOLORA_TRAIN_OPTIONS")
MergedSocket = io.Custom("DUOLORA_MERGED")
LoraModelSocket = io.Custom("LORA_MODEL")
LossMapSocket = io.Custom("LOSS_MAP")


@dataclass(frozen=True)
class LoadedConcept:
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
class TrainOptions:
    """The rarely used settings of a training from pictures; the trainers' own widgets replace their part.

    Attributes:
        form: the LoRA's alpha and coverage; its rank is the trainers'
        learning: the loop's settings
        unzip: the settings of UnZip Image alone; its `learning` is not used
        compute, checkpointing: see `Limits`
        self_made: how class pictures are sampled, and live samples guided
        sample_every: training steps from one live sample to the next; 0: none
        sample_prompt: of the live samples; empty: that of the training
        resume: keep trainings on disk until they end, and go on with them
    """

    form: LoraForm = field(default_factory=LoraForm)
    learning: LearnConfig = field(default_factory=lambda: LearnConfig(micro_batch=4))
    unzip: UnzipConfig = field(default_factory=UnzipConfig)
    compute: str = "as loaded"
    checkpointing: bool | None = None
    self_made: SelfMade = field(default_factory=lambda: SelfMade(count=8))
    sample_every: int = 0
    sample_prompt: str = ""
    resume: bool = True


@dataclass(frozen=True)
class MergeResult:
    """A finished merge and what is known of it.

    `pair` and `gates` are None where there are no masks: combinations, turned blocks, LoRAs trained from pictures.
    """

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

    @cached_property
    def lora(self) -> Mapping[str, Tensor]:
        """The merge as an ordinary LoRA, both strengths 1. Made once: whoever hands it out shares its memory."""
        return ordinary_lora(self.merged, 1.0, 1.0)

    def __str__(self) -> str:
        """As of `LoadedConcept`."""
        return f"merge of {' and '.join(self.sources)}"


def ordinary_lora(merged: MergedLora, content_strength: float, style_strength: float) -> Mapping[str, Tensor]:
    """A merge at these strengths as the state dict of an ordinary LoRA, in fp16.

    Raises:
        LoraFileError: a value is too large for fp16.
    """
    with torch.inference_mode(False):
        return kohya_state_dict(merged.fold(content_strength, style_strength))
