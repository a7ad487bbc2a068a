"""What the metadata of a LoRA file that we save says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .folded import FoldedLora

VERSION = "0.1.0"


@dataclass(frozen=True)
class FileInfo:
    """What the metadata of a saved LoRA says beside the recipe. No date: the same merge saved again is the same file.

    Attributes:
        title: shown by LoRA browsers
        trigger_phrase: the prompt with which both concepts appear
        prediction: "eps" or "v", that of the model on which it was merged
        merged_from: the names of the source files
    """

    title: str
    trigger_phrase: str = ""
    prediction: str = "eps"
    merged_from: tuple[str, ...] = ()


def metadata(lora: FoldedLora, info: FileInfo, recipe: Mapping[str, Any]) -> dict[str, str]:
    """kohya's `ss_*`, the model spec's `modelspec.*` and our whole recipe as JSON under `duolora_recipe`."""
    ranks = {low_rank.rank for low_rank in lora.layers.values()}
    dim = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    values = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": dim,
        "ss_network_alpha": str(largest_rank(lora)),
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_output_name": info.title,
        "ss_training_comment": "merged by DuoLoRA",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": info.title,
        "modelspec.trigger_phrase": info.trigger_phrase,
        "modelspec.prediction_type": "v" if info.prediction == "v" else "epsilon",
        "modelspec.merged_from": ", ".join(info.merged_from),
        "duolora_version": VERSION,
        "duolora_recipe": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
    }
    return {key: value for key, value in values.items() if value}


def largest_rank(lora: FoldedLora) -> int:
    return max((low_rank.rank for low_rank in (*lora.layers.values(), *lora.text.values())), default=0)
