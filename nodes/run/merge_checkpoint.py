"""What a merge or a ZipLoRA training is known by; `checkpoint` says when its checkpoints are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...duolora_core import Gates
from ...duolora_core.merge.trainer import gates_at_start
from .checkpoint import Checkpointer, checkpointer_of, pictures_sha256
from .loaded_lora import LoadedLora
from .merge_inputs import MergeInputs


def merge_checkpointer(
    inputs: MergeInputs,
    loras: Sequence[LoadedLora],
    combined_prompt: str | None,
    settings: Mapping[str, Any],
    gates: Gates,
) -> Checkpointer:
    """The checkpointer of a training on a MODEL, which keeps nothing where the options say so.

    Args:
        combined_prompt: None where the training has no use for it
        settings: of the training itself, as plain JSON data
        gates: that it trains
    """
    options = inputs.options
    vaes = [inputs.vae_for(lora) for lora in loras if lora.pictures is not None]
    decides = {
        "settings": {name: value for name, value in settings.items() if name != "micro_batch"},
        "concepts": [
            (lora.role, lora.file.sha256, lora.prompt, lora.strength, pictures_sha256(lora.pictures))
            + ((dict(lora.placing),) if lora.placing else ())
            for lora in loras
        ],
        "combined_prompt": combined_prompt,
        "resolution": inputs.resolution,
        "compute": options.compute,
        "own pictures": [
            options.sampled_images_count,
            options.sampled_images_steps,
            options.sampled_images_cfg,
            options.negative_prompt,
        ],
    }
    return checkpointer_of(
        options.resume, decides, inputs.model, inputs.clip, vaes, gates_at_start(gates), settings["steps"]
    )
