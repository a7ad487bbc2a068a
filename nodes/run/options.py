"""The rarely used settings of merges and trainings, with the defaults that hold without an options node."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...duolora_core.merge.config import MergeConfig
from ...duolora_core.train_lora import LoraConfig, TrainConfig, UnzipConfig
from ..host.pictures import SampledImages


@dataclass(frozen=True)
class RunOptions:
    """How any training runs.

    Attributes:
        compute, checkpointing: see `Limits`
        sampled_images: how training pictures that are missing are sampled, and live samples guided
        sample_every: training steps from one live sample to the next; 0: none
        sample_prompt: of the live samples; empty: that of the training
        resume: keep trainings on disk until they end, and go on with them
    """

    compute: str = "as loaded"
    checkpointing: bool | None = None
    sampled_images: SampledImages = field(default_factory=SampledImages)
    sample_every: int = 0
    sample_prompt: str = ""
    resume: bool = True


@dataclass(frozen=True)
class MergeOptions:
    """The rarely used settings of a merge.

    Attributes:
        config: everything of the engine; the merge node's own widgets replace their part unless `is_preset`
        is_preset: the config is one of the published presets and is used whole
        most_steps: what the merge node's steps are cut to; None: as many as it says
    """

    config: MergeConfig = field(default_factory=MergeConfig)
    is_preset: bool = False
    most_steps: int | None = None
    custom_prior: str = ""
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class TrainOptions:
    """The rarely used settings of a training from pictures; the trainers' own widgets replace their part.

    Attributes:
        form: the LoRA's alpha and coverage; its rank is the trainers'
        learning: the loop's settings
        unzip: the settings of UnZip Image alone; its `learning` is not used
    """

    form: LoraConfig = field(default_factory=LoraConfig)
    learning: TrainConfig = field(default_factory=lambda: TrainConfig(micro_batch=4))
    unzip: UnzipConfig = field(default_factory=UnzipConfig)
    run: RunOptions = field(default_factory=lambda: RunOptions(sampled_images=SampledImages(count=8)))
