"""A LoRA as its loader reads it: from a file, from a LORA_MODEL, or every one of a LORA_STACK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ...duolora_core.errors import LoraFileError, SettingsError
from ...duolora_core.files.sanitize import listed, sanitize
from ...duolora_core.lora.adapters import PlainLora
from ...duolora_core.lora.beside import words_beside
from ...duolora_core.lora.read import LoraFile, lora_from_tensors, read_lora
from ...duolora_core.lora.trigger_words import file_prompt, trigger_words
from ..host import files
from .loaded_lora import LoadedLora
from .lora_stack import stacked_loras

CONNECTED = "connected LORA_MODEL"
"""The name of a LoRA that never was a file."""


@dataclass(frozen=True)
class LoaderSettings:
    """What a loader's widgets say.

    Attributes:
        example: of a prompt, for the errors
    """

    role: Literal["content", "style"]
    prompt: str
    strength: float
    adapter_rank: int
    example: str


def load_file(name: str, settings: LoaderSettings, pictures: Sequence[Tensor] | None) -> tuple[LoadedLora, str]:
    """A file of the loras folders, and what was found in it.

    Raises:
        LoraFileError: it is damaged or no LoRA.
        SettingsError: there is no prompt, in the widget or in the file.
    """
    path = files.lora_path(name)
    return _described(read_lora(path), words_beside(path), settings, settings.prompt, pictures)


def load_connected(lora: Any, settings: LoaderSettings, pictures: Sequence[Tensor] | None) -> tuple[LoadedLora, str]:
    """A LORA_MODEL, and what was found in it; raises as `load_file`."""
    if lora is None:
        raise SettingsError("No LoRA is chosen: pick a file, or connect a LORA_MODEL to the lora input.")
    if not isinstance(lora, Mapping) or not all(isinstance(value, Tensor) for value in lora.values()):
        raise SettingsError("The lora input holds no LORA_MODEL. Connect that of Train LoRA, or pick a file.")
    file = lora_from_tensors(lora, CONNECTED)
    return _described(file, (), settings, settings.prompt, pictures)


def load_stack(stack: Any, settings: LoaderSettings, pictures: Sequence[Tensor] | None) -> list[tuple[LoadedLora, str]]:
    """The LoRAs of a LORA_STACK in its order, each at its own strengths times the loader's.

    With several of them each line of the prompt is that of one; an empty prompt leaves each its own trigger words.

    Raises:
        SettingsError: what is connected is no LORA_STACK or an empty one, its prompts are fewer or more than its LoRAs,
            or pictures are connected and it is not clear whose they are.
        LoraFileError: one of its files is not there, damaged or no LoRA.
    """
    entries = stacked_loras(stack)
    if not entries:
        raise SettingsError("The connected LORA_STACK is empty: choose a LoRA in the stacker.")
    lines = [line.strip() for line in settings.prompt.splitlines() if line.strip()]
    prompts = [settings.prompt] if len(entries) == 1 else lines or [""] * len(entries)
    if len(prompts) != len(entries):
        raise SettingsError(
            f"The connected LORA_STACK holds {len(entries)} LoRAs, but the prompt has {len(prompts)} lines. Write one "
            "line for each, in the stack's order, or none."
        )
    if pictures is not None and len(entries) > 1:
        raise SettingsError(
            f"Pictures are of one LoRA, but the connected LORA_STACK holds {len(entries)}. Disconnect the pictures, or "
            "give each LoRA a loader of its own and chain them through the others input."
        )
    loaded: list[tuple[LoadedLora, str]] = []
    for entry, prompt in zip(entries, prompts, strict=True):
        path = stacked_path(entry.name)
        strengths = settings.strength * entry.strength, settings.strength * entry.text_strength
        lora, info = _described(read_lora(path), words_beside(path), settings, prompt, pictures, strengths)
        info += f"\nfrom the stack, at strength {strengths[0]:g} and {strengths[1]:g} in the text encoders"
        loaded.append((lora, info))
    return loaded


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


def _described(
    file: LoraFile,
    beside: Sequence[str],
    settings: LoaderSettings,
    written: str,
    pictures: Sequence[Tensor] | None,
    strengths: tuple[float, float] | None = None,
) -> tuple[LoadedLora, str]:
    """The LoRA at these strengths, of the UNet and of the text encoders, and what was found in its file."""
    words = trigger_words(file.metadata, beside=beside)
    prompt, notes = written.strip(), []
    if not prompt:
        prompt, notes = _prompt_of(file, beside, settings.example)
    info = "\n".join([_info(file, prompt, words), *notes])
    strength, text_strength = strengths or (settings.strength, None)
    rank = settings.adapter_rank
    lora = LoadedLora(settings.role, file, prompt, strength, pictures, text_strength=text_strength, adapter_rank=rank)
    return lora, info


def _prompt_of(file: LoraFile, beside: Sequence[str], example: str) -> tuple[str, list[str]]:
    """What the file itself gives as a prompt, and lines that say what that is made of."""
    # A LORA_MODEL never was a file: its name is ours.
    found = file_prompt(file.name if file.name != CONNECTED else "", file.metadata, beside)
    if found is None:
        raise SettingsError(
            f"{file.name} names no trigger words, so its prompt cannot be left empty. Write one as {example!r}."
        )
    notes = [f"the prompt was left empty: this one is made of {found.source}"]
    if not found.is_whole:
        notes.append(f"It is bare words: a whole prompt, such as {example!r}, can merge much better.")
    return found.text, notes


def _info(file: LoraFile, prompt: str, words: list[str]) -> str:
    ranks = sorted({entry.rank for entry in file.entries.values() if isinstance(entry, PlainLora)})
    spread = f", rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "") if ranks else ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in file.kinds.items())
    lines = [
        f"{file.name}: {kinds} layers{spread}",
        *file.notes,
        f"prompt: {prompt}",
        f"trigger words in the file: {', '.join(words) or 'none'}",
    ]
    if file.offsets:
        lines.append(f"bias and norm changes: {len(file.offsets)}")
    lines += listed(f"skipped {key}: {reason}" for key, reason in file.skipped.items())
    if file.kinds.keys() - {PlainLora.kind}:
        lines.append("what is no plain LoRA becomes one on the model; the merge says at what rank and loss")
    return "\n".join(lines)
