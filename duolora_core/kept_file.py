"""A file that is only ever read by whoever would write the same: tensors and plain data, checked against each other.

    write_kept(path, tensors, told, fingerprint)
    tensors, told = read_kept(path, fingerprint)

What stands in it is then what was once written; whether that makes sense is for the caller to check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import LoraFileError
from .safetensors_bytes import safetensors_chunks
from .tensor_file import read_tensors
from .tensor_header import Header
from .whole_file import write_whole

FORMAT = 1
"""Rises whenever a training of equal settings would take another course, or a file is laid out differently."""

UNREADABLE = (LoraFileError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a damaged or foreign file may raise, also while the caller looks at what is in it."""

_KEY = "duolora_unfinished"


def write_kept(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any], fingerprint: str) -> Path:
    """Writes it in place of an earlier one.

    Args:
        told: plain JSON data
        fingerprint: of everything that decides what may go on from it

    Raises:
        DuoLoraError: the file cannot be written.
    """
    whole = {"format": FORMAT, "fingerprint": fingerprint, **told}
    metadata = {_KEY: json.dumps(whole), "sha256": digest(tensors, whole)}
    return write_whole(path, safetensors_chunks(tensors, metadata), replace=True)


def read_kept(path: Path, fingerprint: str, most_bytes: int) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Reads it back.

    Raises:
        one of UNREADABLE: the file is damaged, too large, or has another fingerprint.
    """

    def check(_name: str, header: Header) -> None:
        if header.size > most_bytes:
            raise ValueError("it is far too large")

    held = read_tensors(path, check)
    told: dict[str, Any] = json.loads(held.metadata[_KEY])
    if held.metadata["sha256"] != digest(held.tensors, told):
        raise ValueError("its content has changed since it was written")
    if (told["format"], told["fingerprint"]) != (FORMAT, fingerprint):
        raise ValueError("it is of another training")
    return held.tensors, told


def digest(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> str:
    """sha256 of all that the file says."""
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for chunk in safetensors_chunks(tensors, {}):
        found.update(chunk)
    return found.hexdigest()
