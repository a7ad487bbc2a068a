"""The merges of others that the baseline node offers, by the names that the artist sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ...duolora_core import LoraPair, LoraStack, MergeConfig, make_merged, open_gates
from ...duolora_core.baselines.core_space import dare, ties
from ...duolora_core.baselines.training_free import average, block_split, null_space, stack
from ...duolora_core.baselines.zip_lora import Axis, ZipLoraConfig, attach_zip, open_masks, zip_lora, zip_workload
from ...duolora_core.errors import SettingsError
from ...duolora_core.lora.folded import FoldedLora
from ...duolora_core.merge.router import with_router
from ...duolora_core.merge.workload import merge_workload
from ..host.denoiser import training_denoiser
from .inputs import Inputs
from .loaded_lora import LoadedLora
from .merge_pictures import extent, merge_checkpointer, merge_pictures, require_vae_for
from .progress import TrainingLog, run_training


@dataclass(frozen=True)
class MethodSettings:
    """What a method without training may depend on beside the pair; each takes what it has a use for."""

    content_strength: float
    style_strength: float
    seed: int


STACK = "stack"
TRAINING_FREE: Mapping[str, Callable[[LoraPair, MethodSettings], FoldedLora]] = {
    STACK: lambda pair, settings: stack(
        pair, content_strength=settings.content_strength, style_strength=settings.style_strength
    ),
    "average": lambda pair, _: average(pair),
    "B-LoRA block split": lambda pair, _: block_split(pair),
    "NP-LoRA null space": lambda pair, _: null_space(pair),
    "TIES": lambda pair, _: ties(pair),
    "DARE": lambda pair, settings: dare(pair, generator=torch.Generator().manual_seed(settings.seed)),
}
ROUTER = "SSR-Merge router"
ANY_NUMBER = (STACK, "average", ROUTER)
"""The methods that take more than one LoRA of either role."""
ZIP_LORA: Mapping[str, Axis] = {"ZipLoRA": "output", "ZipLoRA, input dimension": "input"}


def merge_any_number(
    inputs: Inputs, content: LoadedLora, style: LoadedLora, placed: LoraStack, method: str, settings: MethodSettings
) -> FoldedLora:
    """One of `ANY_NUMBER`; the router alone looks at pictures, those that ZipRank Merge would train on.

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    if method == ROUTER:
        placed = _routed(inputs, content, style, placed, MergeConfig(router="on", seed=settings.seed))
    share = 1.0 if method == ROUTER else 1 / len(placed.loras)
    strengths = (settings.content_strength, settings.style_strength) if method == STACK else (share, share)
    return make_merged(placed, open_gates(placed)).fold(*strengths)


def _routed(
    inputs: Inputs, content: LoadedLora, style: LoadedLora, placed: LoraStack, config: MergeConfig
) -> LoraStack:
    if inputs.clip is None:
        raise SettingsError(
            f"{ROUTER} looks at what each LoRA meets under its own prompt, so it needs CLIP: connect the checkpoint's."
        )
    require_vae_for(inputs, content, style)
    pictures = merge_pictures(inputs, content, style, placed, None, config.seed, {})
    sizes, tokens = extent(*pictures)
    work = merge_workload(placed, sizes, config, tokens)
    with training_denoiser(inputs.model, work, inputs.limits(config.micro_batch)) as (denoiser, planner):
        return with_router(denoiser, placed, *pictures, config, planner)


def run_zip_lora(
    inputs: Inputs, content: LoadedLora, style: LoadedLora, pair: LoraPair, axis: Axis, config: ZipLoraConfig
) -> tuple[FoldedLora, TrainingLog]:
    """Trains ZipLoRA on the pictures that ZipRank Merge would train on, and folds it into one LoRA.

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    if inputs.clip is None:
        raise SettingsError(
            "ZipLoRA trains with both prompts, so it needs CLIP: connect the checkpoint's, or choose another method."
        )
    require_vae_for(inputs, content, style)
    checkpointer = merge_checkpointer(inputs, (content, style), open_masks(pair, axis), config, axis=axis)
    # ZipLoRA sees each picture under its own prompt alone.
    content_pictures, style_pictures = merge_pictures(
        inputs, content, style, pair, None, config.seed, checkpointer.pictures
    )
    checkpointer.trains_on(content=content_pictures, style=style_pictures)
    sizes, tokens = extent(content_pictures, style_pictures)
    work = zip_workload(pair, axis, sizes, tokens)
    with (
        training_denoiser(inputs.model, work, inputs.limits(config.micro_batch)) as (denoiser, planner),
        attach_zip(denoiser.modules, pair, axis) as zipped,
    ):
        reports = zip_lora(denoiser, zipped, content_pictures, style_pictures, config, planner, checkpointer.resume)
        log = run_training(reports, config.steps, planner, checkpointer)
    folded = zipped.fold()
    checkpointer.finished()
    return folded, log
