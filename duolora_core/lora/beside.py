"""What other programs leave beside a LoRA file: PEFT its settings, Lora Manager what the author says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import LoraFileError
from ..files.sanitize import json_of, sanitize
from .scale import CONFIG_NAME

_MOST_BYTES = 4 << 20
"""Lora Manager keeps the whole answer of its source, with every picture's prompt."""


def config_beside(path: Path) -> Mapping[str, Any] | None:
    """PEFT's `adapter_config.json` in a LoRA's folder, if it is this file's: the only safetensors file there.

    Raises:
        LoraFileError: it is there but is no JSON object of at most four megabytes.
    """
    config = path.with_name(CONFIG_NAME)
    if not config.is_file() or sum(each.suffix.lower() == ".safetensors" for each in path.parent.iterdir()) > 1:
        return None
    held = _object_in(config)
    if held is None:
        raise LoraFileError(
            f"{sanitize(path.name)}: the {CONFIG_NAME} beside it, which gives its scale, is no JSON object that can "
            "be read. Download it again, or move the LoRA into another folder to take its scale as 1."
        )
    return held


def beside(path: Path) -> list[Path]:
    """Those files that are there and may decide how a LoRA is read."""
    return [each for each in (path.with_name(CONFIG_NAME), _words_path(path)) if each.is_file()]


def _words_path(path: Path) -> Path:
    """Where Lora Manager keeps what it knows of a LoRA: `dog.metadata.json` beside `dog.safetensors`."""
    return path.with_name(f"{path.stem}.metadata.json")


def words_beside(path: Path, most: int = 3) -> list[str]:
    """The trigger words that the LoRA's author published, as Lora Manager keeps them: `civitai.trainedWords`.

    None where there is no such file or nothing of that shape in it: it is another program's, and only a help.
    """
    held = _object_in(_words_path(path)) or {}
    source = held.get("civitai")
    words = cast(Mapping[str, Any], source).get("trainedWords") if isinstance(source, Mapping) else None
    if not isinstance(words, list):
        return []
    given = [word.strip() for word in cast(list[Any], words) if isinstance(word, str)]
    return list(dict.fromkeys(word for word in given if word))[:most]


def _object_in(path: Path) -> Mapping[str, Any] | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        held = json_of(content.decode("utf-8")) if len(content) <= _MOST_BYTES else None
    except (OSError, ValueError):
        return None
    return cast(Mapping[str, Any], held) if isinstance(held, dict) else None
