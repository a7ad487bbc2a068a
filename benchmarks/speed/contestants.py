"""The methods that are compared, each as a function that does one whole training step when it is called.

with CONTESTANTS["authors"](Task(denoiser, pair, pixels=512)) as step:
    step()
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import cast

from benchmarks.random_sdxl import UNetDenoiser, checkpointed, random_pictures
from benchmarks.speed.authors import RankMaskedLoras, authors_losses
from benchmarks.speed.dense import DenseLoras, Losses, attached, train_dense
from benchmarks.speed.ziplora import ColumnMaskedLoras, ziplora_losses
from duolora_core import LoraPair, MergeConfig, StepReport, attach, layer_roles, open_gates, starting_gates, train
from duolora_core.baselines.zip_lora import ZipLoraConfig, open_masks
from duolora_core.model.memory.estimate import Checkpointing

Step = Callable[[], float]
"""Does one whole training step and returns its total loss."""
UNENDING = 100_000
EVERY_LOSS = MergeConfig(layer_prior_weight=1.0, cycle_weight=0.01)
"""The whole method, as its authors train it; our default leaves the layer prior and the cycle out."""


@dataclass(frozen=True)
class Task:
    """What all of them train on, and how.

    Attributes:
        pixels: width and height of both pictures
        config: of DuoLoRA's training, ours and the authors'; its `steps` do not matter
        checkpointing: the blocks that are computed again in the backward pass
    """

    denoiser: UNetDenoiser
    pair: LoraPair
    pixels: int
    config: MergeConfig = EVERY_LOSS
    checkpointing: Checkpointing = "none"


@contextmanager
def exact(task: Task) -> Generator[Step, None, None]:
    """Our engine: `duolora_core.train` itself."""
    config = replace(task.config, steps=UNENDING)
    roles = layer_roles(task.denoiser.layout, config.layer_prior)
    gates = starting_gates(task.pair, roles, config)
    with (
        checkpointed(task.denoiser.unet, task.checkpointing),
        attach(task.denoiser.modules, task.pair, gates) as gated,
    ):
        reports = train(task.denoiser, gated, *random_pictures(task.pixels), roles, config)
        with closing(cast("Generator[StepReport]", reports)):
            yield lambda: next(reports).losses["total"]


@contextmanager
def authors(task: Task) -> Generator[Step, None, None]:
    """DuoLoRA's step in the authors' form."""
    roles = layer_roles(task.denoiser.layout, task.config.layer_prior)
    loras = RankMaskedLoras(task.pair, open_gates(task.pair), task.denoiser.device, task.denoiser.dtype)
    with _dense(task, loras, authors_losses(roles, task.config)) as step:
        yield step


@contextmanager
def ziplora(task: Task) -> Generator[Step, None, None]:
    """ZipLoRA's step in its public form."""
    loras = ColumnMaskedLoras(task.pair, open_masks(task.pair, "input"), task.denoiser.device, task.denoiser.dtype)
    with _dense(task, loras, ziplora_losses(ZipLoraConfig.similarity_weight)) as step:
        yield step


CONTESTANTS: Mapping[str, Callable[[Task], AbstractContextManager[Step]]] = {
    "exact": exact,
    "authors": authors,
    "ziplora": ziplora,
}


@contextmanager
def _dense(task: Task, loras: DenseLoras, losses: Losses) -> Generator[Step, None, None]:
    (content,), (style,) = random_pictures(task.pixels)
    with checkpointed(task.denoiser.unet, task.checkpointing), attached(task.denoiser.modules, loras):
        totals = train_dense(task.denoiser, loras, content, style, losses, task.config)
        yield lambda: next(totals)
