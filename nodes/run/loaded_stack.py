"""Every LoRA of a LORA_STACK, read from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ...duolora_core.errors import LoraFileError
from ...duolora_core.files.sanitize import sanitize
from ...duolora_core.lora.beside import words_beside
from ...duolora_core.lora.match import RANK_LIMIT
from ...duolora_core.lora.metadata import trigger_words
from ...duolora_core.lora.read import read_lora
from ..host import files
from .loaded_lora import LoadedLora
from .lora_stack import StackedLora, stacked_loras


def loaded_stack(
    stack: Any,
    role: Literal["content", "style"],
    prompt: str = "",
    strength: float = 1.0,
    adapter_rank: int = RANK_LIMIT,
) -> list[LoadedLora]:
    """The LoRAs of a stack in its order, each at its own strengths times `strength`; empty for an empty stack.

    Args:
        prompt: of all of them; empty: each has its own trigger words, from its file or from beside it, if there are any

    Raises:
        SettingsError: what is connected is no LORA_STACK.
        LoraFileError: one of its files is not there, damaged or no LoRA.
    """
    return [_loaded(each, role, prompt.strip(), strength, adapter_rank) for each in stacked_loras(stack)]


def stacked_path(name: str) -> Path:
    """The file that a stack means; some packs leave its ending out.

    Raises:
        LoraFileError: there is none in the loras folders.
    """
    names = files.lora_names()
    for each in (name, f"{name}.safetensors"):
        spelled = next((known for known in names if known.replace("\\", "/") == each), None)
        if spelled is not None:
            return files.lora_path(spelled)
    raise LoraFileError(
        f"The connected LORA_STACK names {sanitize(name)}, which is not in the loras folders. Choose another file in "
        "the stacker, or put this one back."
    )


def _loaded(
    entry: StackedLora, role: Literal["content", "style"], prompt: str, strength: float, adapter_rank: int
) -> LoadedLora:
    path = stacked_path(entry.name)
    file = read_lora(path)
    prompt = prompt or ", ".join(trigger_words(file.metadata, beside=words_beside(path)))
    text_strength = strength * entry.text_strength
    return LoadedLora(
        role, file, prompt, strength * entry.strength, None, text_strength=text_strength, adapter_rank=adapter_rank
    )
