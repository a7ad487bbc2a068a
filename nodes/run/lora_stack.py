"""LORA_STACK, the list of LoRAs that Lora Manager, Efficiency and rgthree hand on: (name, model, clip strength)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...duolora_core.errors import SettingsError
from ...duolora_core.files.sanitize import sanitize

_WRONG = "The lora_stack input holds no LORA_STACK, a list of (name, model strength, clip strength). Connect a stacker."


@dataclass(frozen=True)
class StackedLora:
    """One entry of a stack."""

    name: str
    strength: float
    text_strength: float


def stacked_loras(stack: Any) -> list[StackedLora]:
    """The LoRAs of a stack, in its order; slots that are left at "None" count for nothing.

    Raises:
        SettingsError: nothing or something else is connected.
    """
    if not isinstance(stack, list | tuple):
        raise SettingsError(_WRONG)
    entries = [_entry(each) for each in cast(Sequence[Any], stack)]
    return [entry for entry in entries if entry.name not in ("", "None")]


def _entry(each: Any) -> StackedLora:
    if not isinstance(each, list | tuple) or len(cast(Sequence[Any], each)) != 3:
        raise SettingsError(_WRONG)
    name, strength, text_strength = cast(Sequence[Any], each)
    if not isinstance(name, str) or not all(isinstance(s, int | float) for s in (strength, text_strength)):
        raise SettingsError(_WRONG)
    if not all(map(math.isfinite, (strength, text_strength))):
        raise SettingsError(f"The connected LORA_STACK gives {sanitize(name, 80)} a strength that is no finite number.")
    return StackedLora(name.replace("\\", "/"), float(strength), float(text_strength))
