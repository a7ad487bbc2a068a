"""One merge from start to end: place both LoRAs, get training latents, train, and describe what came out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..duolora_core import (
    Concept,
    LoraPair,
    MergeConfig,
    StepReport,
    attach,
    initial_gates,
    layer_roles,
    make_merged,
    make_pair,
    place,
    train,
)
from ..duolora_core.errors import SettingsError
from ..duolora_core.gates import BlockGates
from ..duolora_core.lora_save import VERSION
from ..duolora_core.report import training_preview
from .host.denoiser import prediction_of, require_sdxl, training_denoiser, unet_layout
from .host.progress import Progress
from .host.prompts import encode
from .sockets import LoadedConcept, MergeOptions, MergeResult
from .studio import Studio, clip_for


def run_merge(
    model: Any,
    clip: Any,
    vae: Any,
    content: LoadedConcept,
    style: LoadedConcept,
    combined_prompt: str,
    resolution: int,
    config: MergeConfig,
    options: MergeOptions,
) -> MergeResult:
    """Merges two loaded concepts on a MODEL, which is left as it was.

    Raises:
        DuoLoraError: with the reason and the mend; the host's interrupt exception on Cancel.
    """
    require_sdxl(model)
    for concept in (content, style):
        if concept.pictures is not None and vae is None:
            raise SettingsError(f"The {concept.role} LoRA has pictures, so a VAE is needed: connect the checkpoint's.")
    with torch.inference_mode(False):
        layout = unet_layout(model.model)
        roles = layer_roles(layout, config.layer_prior)
        placed = [place(concept.file, layout, concept.strength) for concept in (content, style)]
        pair = make_pair(placed[0], placed[1], layout, config.basis)
        generator = torch.Generator().manual_seed(config.seed)
        gates = initial_gates(
            pair, roles, config.initialisation, config.content_threshold, config.style_threshold, generator
        )
    studio = Studio(model, clip, vae, layout, encode(clip_for(clip, placed), combined_prompt), resolution, options)
    content_pictures = studio.pictures(content, placed[0], config.seed)
    # Another seed, else both LoRAs would start from the same noise and paint the same composition.
    style_pictures = studio.pictures(style, placed[1], config.seed ^ 0x5EED)

    history = _History(config.steps)
    shape = content_pictures[0].latent.shape
    with (
        training_denoiser(model, config.micro_batch, shape, options.compute, options.checkpointing) as denoiser,
        attach(denoiser.modules, pair, gates) as gated,
    ):
        progress = Progress(config.steps)
        for report in train(denoiser, gated, content_pictures, style_pictures, roles, config):
            history.add(report)
            progress.update(report.step, history.picture)
    with torch.inference_mode(False):
        counts = len(content_pictures), len(style_pictures)
        recipe = _recipe(model, (content, style), counts, combined_prompt, resolution, config)
        return MergeResult(
            merged=make_merged(pair, gates, recipe),
            trigger_phrase=combined_prompt,
            prediction=prediction_of(model.get_model_object("model_sampling")),
            sources=(content.file.name, style.file.name),
            notes=_notes(pair, placed, history),
            losses=history.losses,
            blocks=history.blocks,
            pair=pair,
            gates=gates,
            roles=roles,
        )


class _History:
    """The loss curves so far and the latest gate map."""

    def __init__(self, steps: int):
        self.steps = steps
        self.losses: dict[str, list[float]] = {}
        self.blocks: Sequence[BlockGates] = ()
        self.done = 0
        self.started = time.monotonic()

    def add(self, report: StepReport) -> None:
        for term, value in report.losses.items():
            self.losses.setdefault(term, []).append(value)
        self.blocks, self.done = report.blocks, report.step

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def picture(self) -> Any:
        left = self.seconds / self.done * (self.steps - self.done)
        return training_preview(self.losses, self.blocks, self.done, self.steps, left)


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


def _notes(pair: LoraPair, concepts: Sequence[Concept], history: _History) -> list[str]:
    """What was used, what was skipped and why, and how the masks ended, in plain words."""
    lines = [f"{history.done} steps in {history.seconds:.0f} s"]
    for role, concept in zip(("content", "style"), concepts, strict=True):
        active = sum(getattr(block, f"{role}_active") for block in history.blocks)
        total = sum(getattr(block, f"{role}_rank") for block in history.blocks)
        lines.append(
            f"{role}: {concept.file.name}, {len(concept.layers)} UNet and {len(concept.text)} text encoder layers, "
            f"{active} of {total} rank components active"
        )
        if active < 0.1 * total:
            lines.append(
                f"The {role} masks have nearly closed: the {role} will be weak. Lower layer_prior_weight or the "
                f"learning "
                f"rate, or raise the {role} strength on Apply Merged LoRA."
            )
    both = sum(name in pair.content and name in pair.style for name in pair.names)
    lines.append(f"{both} of {len(pair.names)} layers are covered by both LoRAs")
    for concept in concepts:
        lines += [f"skipped {key} of {concept.file.name}: {reason}" for key, reason in concept.skipped.items()]
    return lines
