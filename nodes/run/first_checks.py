"""What is said of a merge in its first second, before prompts are encoded and pictures painted; it stops nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ...duolora_core import LoraStack
from ...duolora_core.files.sanitize import sanitize
from ...duolora_core.report import shares_a_word
from ..host.files import checkpoint_folder, free_bytes, saving_folder
from ..host.progress import tell
from .loaded_lora import LoadedLora

_MOST_STATE = 64 * 2**20
"""Bytes of an unfinished merge: 60 pictures' latents of 1024 px are 16 MB, masks and their moments some MB."""
_BYTES_A_NUMBER = 2
"""Of a merged file, in half precision."""


def first_checks(loaded: Sequence[LoadedLora], placed: LoraStack, prompts: Sequence[str], resumable: bool) -> list[str]:
    """Warnings, and on the running node these, or that there are none.

    Args:
        loaded: in the order of `placed`, which has been found to fit the model
        prompts: the combined ones
        resumable: whether the training is kept on disk until it ends
    """
    warnings = [*_unnamed(loaded, prompts), *_disk(placed, resumable)]
    fits = ", ".join(f"{lora.file.name} {len(lora.layers) + len(lora.text)}" for lora in placed.loras)
    tell("\n".join([f"layers that fit this model: {fits}", *(warnings or ["prompts and disk space: nothing to say"])]))
    return warnings


def _unnamed(loaded: Sequence[LoadedLora], prompts: Sequence[str]) -> list[str]:
    """LoRAs whose own prompt, trigger words included, has no telling word in common with any combined prompt."""
    together = " ".join(prompts)
    return [
        f"The combined prompt has no word of the prompt of {each.file.name}, '{sanitize(each.prompt)}': without its "
        "trigger words it may not show."
        for each in loaded
        if not shares_a_word(together, each.prompt)
    ]


def _disk(placed: LoraStack, resumable: bool) -> list[str]:
    """Folders with too little room, each with what will not be there."""
    numbers = sum(
        low_rank.up.numel() + low_rank.down.numel()
        for lora in placed.loras
        for low_rank in (*lora.layers.values(), *lora.text.values())
    )
    wanted = [(saving_folder(), _BYTES_A_NUMBER * numbers, "the merged LoRA, if it is saved with all its ranks")]
    if resumable:
        wanted.append((checkpoint_folder(), _MOST_STATE, "what a training that is stopped goes on from"))
    return [
        f"The disk of {folder} has {free_bytes(folder) / 2**20:.0f} MB free, too little for {what} (about "
        f"{needed / 2**20:.0f} MB). Make room there before the merge ends."
        for folder, needed, what in wanted
        if free_bytes(folder) < needed
    ]
