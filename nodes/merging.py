"""One merge from start to end: place both LoRAs, get training latents, train, and describe what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..duolora_core import (
    Gates,
    LoraPair,
    MergeConfig,
    Picture,
    attach,
    layer_roles,
    make_merged,
    make_pair,
    starting_gates,
    train,
)
from ..duolora_core.gates import BlockGates, block_statistics
from ..duolora_core.layer_priors import Role
from ..duolora_core.lora_save import VERSION
from ..duolora_core.memory.needs import merge_workload
from .host.denoiser import Limits, prediction_of, training_denoiser
from .keeping_merges import MergeFile, MergeKeeper, keeper_for
from .live import LiveSample, Sampler
from .pairing import concept_note, coverage_notes, loaded_pair
from .sockets import LoadedConcept, MergeResult
from .studio import Studio, extent
from .trained_gates import TrainedGates, recalled, remember
from .training import watched

_RECALLED = "not trained again: of all that decides the masks, nothing has changed"


def run_merge(
    studio: Studio, content: LoadedConcept, style: LoadedConcept, combined_prompt: str, config: MergeConfig
) -> MergeResult:
    """Merges two loaded concepts on the studio's MODEL, which is left as it was.

    Raises:
        DuoLoraError: with the reason and the mend; the host's interrupt exception on Cancel.
    """
    studio.require_vae_for(content, style)
    model = studio.model
    placed = loaded_pair(model, content, style)
    with torch.inference_mode(False):
        roles = layer_roles(placed.layout, config.layer_prior)
        pair = make_pair(placed.content_concept, placed.style_concept, placed.layout, config.basis)
        gates = starting_gates(pair, roles, config)
    # The masks depend on the combined prompt through the cycle alone.
    learned_prompt = combined_prompt if config.cycle_weight else None
    file = MergeFile(len(gates.values), config.steps)
    settings = {"method": "ZipRank", **asdict(config)}
    keeper = keeper_for(studio, (content, style), learned_prompt, settings, file)
    key = keeper.fingerprint, config, studio.options
    trained = recalled(key)
    notes = [] if trained is None else [_RECALLED]
    if trained is None:
        content_pictures, style_pictures = studio.pictures(
            content, style, placed, learned_prompt, config.seed, file.latents
        )
        file.learning_from(content_pictures, style_pictures)
        live = studio.live_sample(placed, combined_prompt, config.seed)
        del placed  # as in their files the LoRAs are not needed any more, and they are as large as in their basis
        work = Work(pair, gates, roles, content_pictures, style_pictures, live)
        trained = _trained(studio, work, config, keeper)
        if trained.steps == config.steps:
            remember(key, trained)
    with torch.inference_mode(False):
        gates.values = trained.values.clone()
        blocks = block_statistics(gates, pair, roles)
        recipe = _recipe(model, (content, style), trained, combined_prompt, studio.resolution, config)
        result = MergeResult(
            merged=make_merged(pair, gates, recipe),
            trigger_phrase=combined_prompt,
            prediction=prediction_of(model.get_model_object("model_sampling")),
            sources=(content.file.name, style.file.name),
            notes=[*notes, *trained.told, *_notes(pair, blocks)],
            losses=trained.losses,
            blocks=blocks,
            pair=pair,
            gates=gates,
            roles=roles,
        )
    keeper.finished()
    return result


@dataclass(frozen=True)
class Work:
    """What a merge trains, and on what."""

    pair: LoraPair
    gates: Gates
    roles: Mapping[str, Role]
    content: Sequence[Picture]
    style: Sequence[Picture]
    live: LiveSample | None


def _trained(studio: Studio, work: Work, config: MergeConfig, keeper: MergeKeeper) -> TrainedGates:
    """The training itself, on the live model."""
    sizes, tokens = extent(work.content, work.style)
    needs = merge_workload(work.pair, sizes, config, tokens)
    limits = Limits(config.micro_batch, studio.options.checkpointing, studio.options.compute)
    with (
        training_denoiser(studio.model, needs, limits) as (denoiser, plans),
        attach(denoiser.modules, work.pair, work.gates) as gated,
    ):
        reports = train(denoiser, gated, work.content, work.style, work.roles, config, plans, keeper.state)
        sampler = Sampler(work.live, denoiser, gated, "merge", plans.notes)
        hidden = () if config.layer_prior_weight else ("layer_prior",)
        history = watched(reports, config.steps, plans, keeper, sampler, hidden)
    pictures = len(work.content), len(work.style)
    return TrainedGates(work.gates.values, history.losses, history.told, pictures, history.done)


def _recipe(
    model: Any,
    loaded: Sequence[LoadedConcept],
    trained: TrainedGates,
    prompt: str,
    resolution: int,
    config: MergeConfig,
) -> dict[str, Any]:
    """What it takes to make the merge again, as plain JSON data."""
    ended = {} if trained.steps == config.steps else {"ended_after": trained.steps}
    return {
        "inputs": {
            concept.role: {
                "name": concept.file.name,
                "sha256": concept.file.sha256,
                "prompt": concept.prompt,
                "strength": concept.strength,
                "pictures": count if concept.pictures is not None else f"{count} self-made",
            }
            for concept, count in zip(loaded, trained.pictures, strict=True)
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
    for role, concept in (("content", pair.content_concept), ("style", pair.style_concept)):
        active = sum(getattr(block, f"{role}_active") for block in blocks)
        total = sum(getattr(block, f"{role}_rank") for block in blocks)
        lines.append(f"{concept_note(role, concept)}, {active} of {total} rank components active")
    return lines + coverage_notes(pair)
