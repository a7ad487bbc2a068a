"""One merge from start to end: place both LoRAs, get training latents, train, and describe what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...duolora_core import (
    Gates,
    LoraPair,
    MergeConfig,
    Picture,
    attach,
    layer_roles,
    make_merged,
    starting_gates,
    train,
)
from ...duolora_core.lora.metadata import VERSION
from ...duolora_core.merge.roles import Role
from ...duolora_core.merge.statistics import BlockGates, block_statistics
from ...duolora_core.merge.workload import merge_workload
from ..host.denoiser import prediction_of, training_denoiser
from .checkpoint import Checkpointer
from .inputs import Inputs
from .loaded_lora import LoadedLora
from .merge_pictures import clip_for, extent, merge_checkpointer, merge_pictures, require_vae_for
from .merge_result import MergeResult
from .pair import approximation_recipe, coverage_notes, in_basis, loaded_pair, lora_note
from .preview_sampling import PreviewSampler, PreviewSampling
from .progress import run_training
from .trained_gates import TrainedGates, recalled, remember

_RECALLED = "not trained again: of all that decides the masks, nothing has changed"


def run_merge(
    inputs: Inputs, content: LoadedLora, style: LoadedLora, combined_prompt: str, config: MergeConfig
) -> MergeResult:
    """Merges two loaded LoRAs on the MODEL, which is left as it was.

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    require_vae_for(inputs, content, style)
    model = inputs.model
    placed = loaded_pair(model, inputs.clip, content, style)
    roles = layer_roles(placed.layout, config.layer_prior)
    pair = in_basis(placed, config.basis)
    gates = starting_gates(pair, roles, config)
    # The masks depend on the combined prompt through the cycle alone.
    learned_prompt = combined_prompt if config.cycle_weight else None
    checkpointer = merge_checkpointer(inputs, (content, style), gates, config, combined_prompt=learned_prompt)
    key = checkpointer.fingerprint, config, inputs.options
    trained = recalled(key)
    notes = [] if trained is None else [_RECALLED]
    if trained is None:
        content_pictures, style_pictures = merge_pictures(
            inputs, content, style, placed, learned_prompt, config.seed, checkpointer.pictures
        )
        checkpointer.trains_on(content=content_pictures, style=style_pictures)
        clip = clip_for(inputs.clip, (placed.content_lora, placed.style_lora))
        preview = inputs.preview_sampling(clip, combined_prompt, config.seed)
        del placed  # as in their files the LoRAs are not needed any more, and they are as large as in their basis
        work = Work(pair, gates, roles, content_pictures, style_pictures, preview)
        trained = _trained(inputs, work, config, checkpointer)
        if trained.steps == config.steps:
            remember(key, trained)
    gates.values = trained.values.clone()
    blocks = block_statistics(gates, pair, roles)
    recipe = _recipe(model, pair, (content, style), trained, combined_prompt, inputs.resolution, config)
    result = MergeResult(
        merged=make_merged(pair, gates, recipe),
        trigger_phrase=combined_prompt,
        prediction=prediction_of(model.get_model_object("model_sampling")),
        sources=(content.file.name, style.file.name),
        notes=[*notes, *trained.log_lines, *_notes(pair, blocks)],
        losses=trained.losses,
        blocks=blocks,
        pair=pair,
        gates=gates,
        roles=roles,
    )
    checkpointer.finished()
    return result


@dataclass(frozen=True)
class Work:
    """What a merge trains, and on what."""

    pair: LoraPair
    gates: Gates
    roles: Mapping[str, Role]
    content: Sequence[Picture]
    style: Sequence[Picture]
    live: PreviewSampling | None


def _trained(inputs: Inputs, work: Work, config: MergeConfig, checkpointer: Checkpointer) -> TrainedGates:
    """The training itself, on the live model."""
    sizes, tokens = extent(work.content, work.style)
    needs = merge_workload(work.pair, sizes, config, tokens)
    with (
        training_denoiser(inputs.model, needs, inputs.limits(config.micro_batch)) as (denoiser, planner),
        attach(denoiser.modules, work.pair, work.gates) as gated,
    ):
        reports = train(denoiser, gated, work.content, work.style, work.roles, config, planner, checkpointer.resume)
        sampler = PreviewSampler(work.live, denoiser, gated, "merge", planner.notes)
        hidden = () if config.layer_prior_weight else ("layer_prior",)
        log = run_training(reports, config.steps, planner, checkpointer, sampler, hidden)
    pictures = len(work.content), len(work.style)
    return TrainedGates(work.gates.values, log.losses, log.log_lines, pictures, log.done)


def _recipe(
    model: Any,
    pair: LoraPair,
    loaded: Sequence[LoadedLora],
    trained: TrainedGates,
    prompt: str,
    resolution: int,
    config: MergeConfig,
) -> dict[str, Any]:
    """What it takes to make the merge again, as plain JSON data."""
    ended = {} if trained.steps == config.steps else {"ended_after": trained.steps}
    placed = pair.content_lora, pair.style_lora
    return {
        "inputs": {
            lora.role: {
                "name": lora.file.name,
                "sha256": lora.file.sha256,
                "prompt": lora.prompt,
                "strength": lora.strength,
                "pictures": count if lora.pictures is not None else f"{count} self-made",
                **lora.placing,
                **approximation_recipe(on_model),
            }
            for lora, count, on_model in zip(loaded, trained.pictures, placed, strict=True)
        },
        "combined_prompt": prompt,
        "model": type(model.model).__name__,
        "resolution": resolution,
        "config": asdict(config),
        **ended,
        "versions": {"duolora": VERSION, "torch": torch.__version__},
    }


def _notes(pair: LoraPair, blocks: Sequence[BlockGates]) -> list[str]:
    """What was used, what was skipped and why, and how the masks ended."""
    lines: list[str] = []
    for role, lora in (("content", pair.content_lora), ("style", pair.style_lora)):
        active = sum(getattr(block, f"{role}_active") for block in blocks)
        total = sum(getattr(block, f"{role}_rank") for block in blocks)
        lines.append(f"{lora_note(role, lora)}, {active} of {total} rank components active")
    return lines + coverage_notes(pair)
