"""The merges of others that the baseline node offers, by the names that the artist sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

from ..duolora_core import LoraPair
from ..duolora_core.baselines.core_space import dare, ties
from ..duolora_core.baselines.training_free import average, block_split, null_space, stack
from ..duolora_core.baselines.zip_lora import Axis, ZipLoraConfig, attach_zip, open_masks, zip_lora, zip_workload
from ..duolora_core.errors import SettingsError
from ..duolora_core.merged import FoldedLora
from .host.denoiser import Limits, training_denoiser
from .keeping_merges import MergeFile, keeper_for
from .sockets import LoadedConcept
from .studio import Studio, extent
from .training import History, watched


@dataclass(frozen=True)
class Dials:
    """What a method without training may depend on beside the pair; each takes what it has a use for."""

    content_strength: float
    style_strength: float
    seed: int


STACK = "stack"
TRAINING_FREE: Mapping[str, Callable[[LoraPair, Dials], FoldedLora]] = {
    STACK: lambda pair, dials: stack(
        pair, content_strength=dials.content_strength, style_strength=dials.style_strength
    ),
    "average": lambda pair, _: average(pair),
    "B-LoRA block split": lambda pair, _: block_split(pair),
    "NP-LoRA null space": lambda pair, _: null_space(pair),
    "TIES": lambda pair, _: ties(pair),
    "DARE": lambda pair, dials: dare(pair, generator=torch.Generator().manual_seed(dials.seed)),
}
ZIP_LORA: Mapping[str, Axis] = {"ZipLoRA": "output", "ZipLoRA, input dimension": "input"}


def run_zip_lora(
    studio: Studio, content: LoadedConcept, style: LoadedConcept, pair: LoraPair, axis: Axis, steps: int, seed: int
) -> tuple[FoldedLora, History]:
    """Trains ZipLoRA on the pictures that ZipRank Merge would train on, and folds it into one LoRA.

    Raises:
        DuoLoraError: with the reason and the mend; the host's interrupt exception on Cancel.
    """
    if studio.clip is None:
        raise SettingsError(
            "ZipLoRA trains with both prompts, so it needs CLIP: connect the checkpoint's, or choose another method."
        )
    studio.require_vae_for(content, style)
    options = studio.options
    config = ZipLoraConfig(
        steps=steps, learning_rate=options.config.learning_rate, micro_batch=options.config.micro_batch, seed=seed
    )
    file = MergeFile(open_masks(pair, axis).values.numel(), steps)
    settings = {"method": "ZipLoRA", "axis": axis, **asdict(config)}
    # ZipLoRA sees each picture under its own prompt alone.
    keeper = keeper_for(studio, (content, style), None, settings, file)
    content_pictures, style_pictures = studio.pictures(content, style, pair, None, seed, file.latents)
    file.learning_from(content_pictures, style_pictures)
    sizes, tokens = extent(content_pictures, style_pictures)
    work = zip_workload(pair, axis, sizes, tokens)
    limits = Limits(config.micro_batch, options.checkpointing, options.compute)
    with (
        training_denoiser(studio.model, work, limits) as (denoiser, plans),
        attach_zip(denoiser.modules, pair, axis) as zipped,
    ):
        reports = zip_lora(denoiser, zipped, content_pictures, style_pictures, config, plans, keeper.state)
        history = watched(reports, config.steps, plans, keeper)
    with torch.inference_mode(False):
        folded = zipped.fold()
    keeper.finished()
    return folded, history
