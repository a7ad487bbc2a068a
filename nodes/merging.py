"""One merge from start to end: place both LoRAs, get training latents, train, and describe what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..duolora_core import (
    LoraPair,
    MergeConfig,
    attach,
    layer_roles,
    make_merged,
    make_pair,
    starting_gates,
    train,
)
from ..duolora_core.lora_save import VERSION
from ..duolora_core.memory.needs import merge_workload
from .host.denoiser import Limits, prediction_of, training_denoiser
from .keeping_merges import MergeFile, keeper_for
from .live import Sampler
from .pairing import concept_note, coverage_notes, loaded_pair
from .sockets import LoadedConcept, MergeResult
from .studio import Studio, extent
from .training import History, watched


def run_merge(
    studio: Studio, content: LoadedConcept, style: LoadedConcept, combined_prompt: str, config: MergeConfig
) -> MergeResult:
    """Merges two loaded concepts on the studio's MODEL, which is left as it was.

    Raises:
        DuoLoraError: with the reason and the mend; the host's interrupt exception on Cancel.
    """
    studio.require_vae_for(content, style)
    model, options = studio.model, studio.options
    placed = loaded_pair(model, content, style)
    with torch.inference_mode(False):
        roles = layer_roles(placed.layout, config.layer_prior)
        pair = make_pair(placed.content_concept, placed.style_concept, placed.layout, config.basis)
        gates = starting_gates(pair, roles, config)
    file = MergeFile(len(gates.values), config.steps)
    settings = {"method": "ZipRank", **asdict(config)}
    keeper = keeper_for(studio, (content, style), combined_prompt, settings, file)
    content_pictures, style_pictures = studio.pictures(
        content, style, placed, combined_prompt, config.seed, file.latents
    )
    file.learning_from(content_pictures, style_pictures)
    live = studio.live_sample(placed, combined_prompt, config.seed)
    del placed  # as in their files the LoRAs are not needed any more, and they are as large as in their basis
    sizes, tokens = extent(content_pictures, style_pictures)
    work = merge_workload(pair, sizes, config, tokens)
    limits = Limits(config.micro_batch, options.checkpointing, options.compute)
    with (
        training_denoiser(model, work, limits) as (denoiser, plans),
        attach(denoiser.modules, pair, gates) as gated,
    ):
        reports = train(denoiser, gated, content_pictures, style_pictures, roles, config, plans, keeper.state)
        sampler = Sampler(live, denoiser, gated, "merge", plans.notes)
        hidden = () if config.layer_prior_weight else ("layer_prior",)
        history = watched(reports, config.steps, plans, keeper, sampler, hidden)
    with torch.inference_mode(False):
        counts = len(content_pictures), len(style_pictures)
        recipe = _recipe(model, (content, style), counts, combined_prompt, studio.resolution, config)
        result = MergeResult(
            merged=make_merged(pair, gates, recipe),
            trigger_phrase=combined_prompt,
            prediction=prediction_of(model.get_model_object("model_sampling")),
            sources=(content.file.name, style.file.name),
            notes=_notes(pair, history),
            losses=history.losses,
            blocks=history.blocks,
            pair=pair,
            gates=gates,
            roles=roles,
        )
    keeper.finished()
    return result


def _recipe(
    model: Any,
    loaded: Sequence[LoadedConcept],
    pictures: Sequence[int],
    prompt: str,
    resolution: int,
    config: MergeConfig,
) -> dict[str, Any]:
    """What it takes to make the merge again, as plain JSON data."""
    return {
        "inputs": {
            concept.role: {
                "name": concept.file.name,
                "sha256": concept.file.sha256,
                "prompt": concept.prompt,
                "strength": concept.strength,
                "pictures": count if concept.pictures is not None else f"{count} self-made",
            }
            for concept, count in zip(loaded, pictures, strict=True)
        },
        "combined_prompt": prompt,
        "model": type(model.model).__name__,
        "resolution": resolution,
        "config": asdict(config),
        "versions": {"duolora": VERSION, "torch": torch.__version__},
    }


def _notes(pair: LoraPair, history: History) -> list[str]:
    """What was used, what was skipped and why, and how the masks ended."""
    lines = list(history.told)
    for role, concept in (("content", pair.content_concept), ("style", pair.style_concept)):
        active = sum(getattr(block, f"{role}_active") for block in history.blocks)
        total = sum(getattr(block, f"{role}_rank") for block in history.blocks)
        lines.append(f"{concept_note(role, concept)}, {active} of {total} rank components active")
    return lines + coverage_notes(pair)
