"""What the metadata of a LoRA file says: trigger words that others wrote, and our own words for a new file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..files.sanitize import json_of, sanitize
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


_LONGEST_WORD = 300
"""Characters of a trigger phrase; CLIP reads about as many at once."""


def trigger_words(metadata: Mapping[str, str], most: int = 3, beside: Sequence[str] = ()) -> list[str]:
    """Trigger words: the phrase of the model spec in the metadata, else those beside the file, else the commonest tags.

    They may become a prompt, so they are bounded, and what a prompt would take for the name of a file is none.
    """
    words = [metadata.get("modelspec.trigger_phrase", "")]
    if not words[0].strip():
        words = list(beside) or _commonest_tags(metadata.get("ss_tag_frequency", "{}"), most)
    shown = (sanitize(word.strip(), _LONGEST_WORD) for word in words)
    return [word for word in shown if word and "embedding:" not in word.lower()]


def _commonest_tags(frequency: str, most: int) -> list[str]:
    """Of {folder: {tag: count}}; free text written by many trainers, so anything else in it is no trigger word."""
    tags: Counter[str] = Counter()
    try:
        for folder in json_of(frequency).values():
            tags.update({str(tag).strip(): int(count) for tag, count in folder.items()})
    except (ValueError, AttributeError, TypeError, OverflowError):
        return []
    return [tag for tag, _ in tags.most_common(most)]
