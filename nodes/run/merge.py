"""One merge from start to end: place the LoRAs, get training latents, train, and describe what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ...duolora_core import (
    Gates,
    LoraStack,
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
from ...duolora_core.merge.router import with_router
from ...duolora_core.merge.statistics import active_components, block_statistics
from ...duolora_core.merge.workload import merge_workload
from ..host.denoiser import prediction_of, training_denoiser
from .checkpoint import Checkpointer
from .first_checks import first_checks
from .inputs import Inputs
from .loaded_lora import LoadedLora
from .merge_pictures import (
    by_label,
    clip_for,
    combined_prompts,
    extent,
    merge_checkpointer,
    merge_pictures,
    require_vae_for,
)
from .merge_result import MergeResult
from .placed import approximation_recipe, coverage_notes, in_basis, lora_note, placed_stack
from .preview_sampling import PreviewSampler, PreviewSampling
from .progress import run_training
from .trained_gates import TrainedGates, recalled, remember

_RECALLED = "not trained again: of all that decides the masks, nothing has changed"


def run_merge(
    inputs: Inputs, content: LoadedLora, style: LoadedLora, combined_prompt: str, config: MergeConfig
) -> MergeResult:
    """Merges all loaded LoRAs on the MODEL, which is left as it was.

    Args:
        content, style: each with its chain of others
        combined_prompt: see `combined_prompts`

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    require_vae_for(inputs, content, style)
    loaded = *content.chain, *style.chain
    prompts = combined_prompts(combined_prompt, content, style)
    model = inputs.model
    placed = placed_stack(model, inputs.clip, content, style)
    warnings = first_checks(loaded, placed, prompts, inputs.options.resume)
    roles = layer_roles(placed.layout, config.layer_prior)
    stack = in_basis(placed, config.basis)
    gates = starting_gates(stack, roles, config)
    # The masks depend on the combined prompts through the cycle alone.
    learned = prompts if config.cycle_weight else None
    checkpointer = merge_checkpointer(inputs, loaded, gates, config, combined_prompts=learned)
    key = checkpointer.fingerprint, config, inputs.options
    trained = recalled(key)
    notes = [] if trained is None else [_RECALLED]
    if trained is None:
        pictures = merge_pictures(inputs, content, style, placed, learned, config.seed, checkpointer.pictures)
        checkpointer.trains_on(**by_label(*pictures))
        preview = inputs.preview_sampling(clip_for(inputs.clip, placed.loras), prompts[0], config.seed)
        del placed  # as in their files the LoRAs are not needed any more, and they are as large as in their basis
        work = Work(stack, gates, roles, *pictures, preview)
        trained = _trained(inputs, work, config, checkpointer)
        if trained.steps == config.steps:
            remember(key, trained)
    gates.values = trained.values.clone()
    stack = replace(stack, router=trained.router)
    prompt = "; ".join(dict.fromkeys(prompts))
    recipe = _recipe(model, stack, loaded, trained, prompt, inputs.resolution, config)
    result = MergeResult(
        merged=make_merged(stack, gates, recipe),
        trigger_phrase=prompt,
        prediction=prediction_of(model.get_model_object("model_sampling")),
        sources=[lora.file.name for lora in loaded],
        notes=[*notes, *trained.log_lines, *warnings, *_notes(stack, gates)],
        losses=trained.losses,
        blocks=block_statistics(gates, stack, roles),
        stack=stack,
        gates=gates,
        roles=roles,
    )
    checkpointer.finished()
    return result


@dataclass(frozen=True)
class Work:
    """What a merge trains, and on what."""

    stack: LoraStack
    gates: Gates
    roles: Mapping[str, Role]
    content: Sequence[Picture]
    style: Sequence[Picture]
    live: PreviewSampling | None


def _trained(inputs: Inputs, work: Work, config: MergeConfig, checkpointer: Checkpointer) -> TrainedGates:
    """The training itself, on the live model."""
    sizes, tokens = extent(work.content, work.style)
    needs = merge_workload(work.stack, sizes, config, tokens)
    with training_denoiser(inputs.model, needs, inputs.limits(config.micro_batch)) as (denoiser, planner):
        stack = with_router(denoiser, work.stack, work.content, work.style, config, planner)
        with attach(denoiser.modules, stack, work.gates) as gated:
            reports = train(denoiser, gated, work.content, work.style, work.roles, config, planner, checkpointer.resume)
            sampler = PreviewSampler(work.live, denoiser, gated, "merge", planner.notes)
            hidden = () if config.layer_prior_weight else ("layer_prior",)
            log = run_training(reports, config.steps, planner, checkpointer, sampler, hidden)
    pictures = [len(own) for own in by_label(work.content, work.style).values()]
    return TrainedGates(work.gates.values, stack.router, log.losses, log.log_lines, pictures, log.done)


def _recipe(
    model: Any,
    stack: LoraStack,
    loaded: Sequence[LoadedLora],
    trained: TrainedGates,
    prompt: str,
    resolution: int,
    config: MergeConfig,
) -> dict[str, Any]:
    """What it takes to make the merge again, as plain JSON data; what a pair cannot have is in it only where it is."""
    ended = {} if trained.steps == config.steps else {"ended_after": trained.steps}
    settings = asdict(config)
    if not stack.router and config.router == "auto":
        del settings["router"]
    return {
        "inputs": {
            label: {
                "name": lora.file.name,
                "sha256": lora.file.sha256,
                "prompt": lora.prompt,
                "strength": lora.strength,
                "pictures": count if lora.pictures is not None else f"{count} self-made",
                **lora.placing,
                **approximation_recipe(on_model),
            }
            for label, lora, count, on_model in zip(stack.labels, loaded, trained.pictures, stack.loras, strict=True)
        },
        "combined_prompt": prompt,
        "model": type(model.model).__name__,
        "resolution": resolution,
        "config": settings,
        **ended,
        "versions": {"duolora": VERSION, "torch": torch.__version__},
    }


def _notes(stack: LoraStack, gates: Gates) -> list[str]:
    """What was used, what was skipped and why, and how the masks of each LoRA ended."""
    each = zip(stack.labels, stack.loras, active_components(gates), strict=True)
    lines = [
        f"{lora_note(label, lora)}, {active} of {total} rank components active" for label, lora, (active, total) in each
    ]
    if stack.router:
        lines.append("started behind SSR-Merge's router, which keeps each LoRA to what it meets on its own pictures")
    return lines + coverage_notes(stack)
