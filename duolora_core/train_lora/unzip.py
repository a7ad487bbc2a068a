"""UnZipLoRA (arXiv 2412.04465): one picture into a content LoRA and a style LoRA, trained together as one model.

    loras = unzip_loras(denoiser.layout, LoraConfig(), config)
    with attach_loras(denoiser.modules, loras) as attached:
        for report in unzip(denoiser, attached, [latent], prompts, config):
            ...
    content, style = loras["content"].fold(), loras["style"].fold()

    L = MSE of the joint model + orthogonality · mean |m_c mask_c m_s mask_s|

Its three parts can be left out one by one: prompt separation (each LoRA's keys and values read its own prompt), column
separation (`columns`), and block separation (in the blocks that are known for content or style, that LoRA trains all
columns).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.state import Checkpoint
from ..errors import SettingsError
from ..merge.roles import layer_roles
from ..merge.trainer import StepReport
from ..model.denoiser import Denoiser
from ..model.layout import UNetLayout
from ..model.loss_scale import LossScale, gradient_norm
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .attached_loras import AttachedLoras
from .column_masks import clamp_columns, column_overlap, column_scores, grow_all, separate_columns
from .config import TrainConfig
from .dreambooth import Extras, gradient, require_finite, train_lora
from .examples import Example, draw_samples
from .per_lora_prompts import read_prompts
from .target_modules import LoraConfig, target_layers
from .trainable_lora import Side, TrainableLora, named_parameters, new_lora

UNZIP_BLOCKS = (
    "up_blocks.0.attentions.0=content, up_blocks.0.attentions.2=content, "
    "up_blocks.0.attentions.1=style, up_blocks.1=style"
)
"""Where content and style train all columns, in the words of `layer_roles`: the blocks of the authors."""


@dataclass(frozen=True)
class UnzipConfig:
    """How a picture is unzipped. The defaults are the authors'.

    Attributes:
        learning: the loop's settings
        separate_prompts, separate_columns, separate_blocks: the three parts; the last one needs the second
        blocks: for the third, as in `layer_roles`
        column_share: of a layer's columns that are opened to each LoRA, each time
        column_steps: when, in shares of all steps
        column_rate: learning rate of the column scales
        orthogonality: weight of what both LoRAs scale
        probes: draws of noise and timestep over which columns are scored
    """

    learning: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, learning_rate=5e-5))
    separate_prompts: bool = True
    separate_columns: bool = True
    separate_blocks: bool = True
    blocks: str = UNZIP_BLOCKS
    column_share: float = 0.1
    column_steps: tuple[float, ...] = (0.0, 1 / 3, 2 / 3)
    column_rate: float = 5e-3
    orthogonality: float = 0.5
    probes: int = 4

    def __post_init__(self) -> None:
        bounds = {
            "column_share": (self.column_share, 1e-4, 1.0),
            "column_rate": (self.column_rate, 0.0, 1.0),
            "orthogonality": (self.orthogonality, 0.0, 1000.0),
            "probes": (self.probes, 1, 1024),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}, but must lie between {low} and {high}.")
        if not self.column_steps or self.column_steps[0] != 0 or not all(0 <= at < 1 for at in self.column_steps):
            raise SettingsError(f"column_steps is {self.column_steps}, but must start with 0 and stay below 1.")


@dataclass(frozen=True)
class UnzipPrompts:
    """The conditions of "A <C> in <S> style", "A <C>" and "An image in <S> style"; equally many tokens."""

    joint: Any
    content: Any
    style: Any


def unzip_loras(layout: UNetLayout, form: LoraConfig, config: UnzipConfig, seed: int = 0) -> dict[Side, TrainableLora]:
    """A new content and a new style LoRA, with their columns if these are to be separated.

    Raises:
        SettingsError: a block of `config.blocks` is not in this model.
    """
    names, roles = target_layers(layout, form.coverage), layer_roles(layout, config.blocks)
    both: tuple[Side, Side] = ("content", "style")
    loras: dict[Side, TrainableLora] = {
        role: new_lora(layout, names, form.rank, form.alpha, seed + place) for place, role in enumerate(both)
    }
    if config.separate_columns:
        for role, lora in loras.items():
            separate_columns(lora, role, roles, everywhere=not config.separate_blocks)
    return loras


def unzip(
    denoiser: Denoiser,
    attached: AttachedLoras,
    latents: Sequence[Tensor],
    prompts: UnzipPrompts,
    config: UnzipConfig,
    *,
    class_examples: Sequence[Example] = (),
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[StepReport]:
    """Trains the attached LoRAs of `unzip_loras` on pictures and yields after every step; arguments as of `train_lora`.

    Args:
        latents: one picture, or several of one content in one style; (channels, h, w)
        class_examples: for prior preservation; their `branch` names the LoRA that is to leave them alone

    Raises:
        SettingsError: there is no picture, or the prompts differ in their number of tokens.
        Otherwise as `train_lora`.
    """
    if not latents:
        raise SettingsError("Unzipping needs a picture.")
    examples = [Example(latent, prompts.joint) for latent in latents]
    planner = planner or MemoryPlanner([MemoryPlan(config.learning.micro_batch, "none")])
    texts: dict[Side, dict[str, Tensor]] = {}
    if config.separate_prompts:
        own: dict[Side, Any] = {"content": prompts.content, "style": prompts.style}
        with attached.branches(["base"]):
            texts = planner.run_with_oom_retry(lambda plan: read_prompts(denoiser, latents[0], prompts.joint, own))
    around = partial(attached.per_lora_prompts, texts)
    extras = Extras(around=around)
    if config.separate_columns:
        content, style = attached.loras["content"], attached.loras["style"]

        def settle() -> None:
            clamp_columns(content)
            clamp_columns(style)

        def open_columns(step: int, scale: LossScale) -> None:
            if step in {round(at * config.learning.steps) for at in config.column_steps}:
                with around():
                    _open_columns(denoiser, attached, examples, config, planner, step, scale)

        penalty = ("overlap", config.orthogonality, partial(column_overlap, content, style))
        extras = Extras(open_columns, around, penalty, settle, config.column_rate)
    yield from train_lora(
        denoiser,
        attached,
        examples,
        config.learning,
        class_examples=class_examples,
        planner=planner,
        resume=resume,
        extras=extras,
    )


def _open_columns(
    denoiser: Denoiser,
    attached: AttachedLoras,
    examples: Sequence[Example],
    config: UnzipConfig,
    planner: MemoryPlanner,
    step: int,
    scale: LossScale,
) -> None:
    """Scores every column over one pass with all of them open, and opens the best.

    Raises:
        NotFiniteError: the gradient that they are scored by is not finite; no column has been opened.
    """
    content, style = attached.loras["content"], attached.loras["style"]
    kept = {role: dict(lora.masks) for role, lora in attached.loras.items()}
    batch = draw_samples(examples, denoiser.sigmas, config.probes, step, config.learning.seed, "probe")
    try:
        for lora in attached.loras.values():
            lora.masks.update({name: torch.ones_like(mask) for name, mask in lora.masks.items()})
        losses = planner.run_with_oom_retry(partial(gradient, denoiser, attached, batch, config.learning, scale))
        require_finite(step, losses, gradient_norm(list(named_parameters(attached.loras).values())), batch)
        size = config.learning.learning_rate
        scores: Mapping[Side, dict[str, Tensor]] = {
            role: {name: column_scores(lora, name, size) for name in lora.masks}
            for role, lora in attached.loras.items()
        }
    finally:
        for role, lora in attached.loras.items():
            lora.masks.update(kept[role])
    with torch.no_grad():
        grow_all(content, style, scores, config.column_share)
