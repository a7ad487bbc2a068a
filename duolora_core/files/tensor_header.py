"""The header of a safetensors file: bounded, parsed as plain JSON and checked against the file's size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from ..errors import LoraFileError
from .sanitize import sanitize

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 16 << 20
"""That of a LoRA of every layer of SDXL has 0.4 MB; some trainers add the tags of all their pictures, a few MB."""
MOST_KEYS = 30_000
"""A LoRA of every layer of SDXL and both text encoders has about 4,000."""
MOST_KEY_LENGTH = 256
MOST_DIMENSIONS = 8

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_DISGUISES = (
    (b"PK", "it is a PyTorch or zip file under another name, and such files can run code, so it is not opened"),
    (b"\x80", "it is a Python pickle under another name, and pickles can run code, so it is not opened"),
    (b"<", "it is a web page, perhaps of a site that wants you to log in"),
    (b"version ", "it is a Git LFS pointer; the file itself was not fetched"),
)


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies: bytes `begin` to `end` of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that fits its file: `slots` cover all `size` bytes of the data, each once."""

    slots: Mapping[str, Slot]
    metadata: Mapping[str, str]
    size: int


def unreadable(name: str, why: str, fix: str = "Download it again; it may be cut short") -> LoraFileError:
    """The error for a file that is not what its suffix says."""
    return LoraFileError(f"{name} is not a readable safetensors file ({why}). {fix}.")


def check_key(key: str, name: str) -> None:
    """Keys are shown in messages and lists, so they must be short and printable.

    Raises:
        LoraFileError: this one is not.
    """
    if len(key) > MOST_KEY_LENGTH or not key.isprintable():
        raise unreadable(
            name, f"a tensor is named {sanitize(key, 60)!r}, {len(key)} characters that no layer is called"
        )


def header_length(start: bytes, size: int, name: str) -> int:
    """The length of the header from the file's first bytes.

    Raises:
        LoraFileError: the file is too short for it, or it is more than any LoRA needs.
    """
    if len(start) < LENGTH_BYTES:
        raise unreadable(name, f"it has only {size} bytes")
    length = int.from_bytes(start, "little")
    if length > size - LENGTH_BYTES:
        disguise = next((what for magic, what in _DISGUISES if start.startswith(magic)), None)
        if disguise is not None:
            raise unreadable(name, disguise, "Get the real .safetensors file from where it came")
        raise unreadable(name, "its header is longer than the file")
    if length > MOST_HEADER_BYTES:
        raise unreadable(name, f"its header has {length >> 20} MB, the most that is read is {MOST_HEADER_BYTES >> 20}")
    return length


def parse_header(raw: bytes, size: int, name: str) -> Header:
    """The header from its bytes; `size` is how many bytes of data follow it.

    Raises:
        LoraFileError: it is no JSON of the format, has too many or absurd entries, or does not fit the data.
    """
    try:
        table: Any = json.loads(raw, object_pairs_hook=_Objects(name))
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "its header is not JSON") from error
    if not isinstance(table, dict):
        raise unreadable(name, "its header is not a table")
    entries = cast(dict[str, Any], table)
    metadata = _metadata(entries.pop("__metadata__", None), name)
    slots: dict[str, Slot] = {}
    for key, entry in entries.items():
        check_key(key, name)
        slots[key] = _slot(key, entry, name)
    end = 0
    for key, slot in sorted(slots.items(), key=lambda item: (item[1].begin, item[1].end)):
        if slot.begin != end:
            raise unreadable(name, f"{key} begins at byte {slot.begin} of the data instead of {end}")
        end = slot.end
    if end != size:
        raise unreadable(name, f"its tensors take {end} bytes but {size} are there")
    return Header(slots, metadata, size)


class _Objects:
    """Takes the JSON objects as they are parsed: refuses equal keys, and stops before there are too many."""

    def __init__(self, name: str):
        self.name, self.count = name, 0

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.count += 1
        if self.count > MOST_KEYS or len(pairs) > MOST_KEYS:
            raise unreadable(self.name, f"its header has more than {MOST_KEYS} entries")
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise unreadable(self.name, f"its header has {sanitize(twice)!r} twice")
        return table


def _metadata(found: Any, name: str) -> dict[str, str]:
    if found is None:
        return {}
    if isinstance(found, dict):
        table = cast(dict[str, Any], found)
        if all(isinstance(value, str) for value in table.values()):
            return table
    raise unreadable(name, "its metadata is not a table of texts")


def _slot(key: str, entry: Any, name: str) -> Slot:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = isinstance(shape, list) and all(type(each) is int for each in (*shape, begin, end))
        numbers = (*shape, begin, end) if whole else ()
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(name, f"the entry of {key} has no dtype, shape and data_offsets") from error
    if not whole or len(shape) > MOST_DIMENSIONS or min(numbers) < 0 or max(numbers) >= 1 << 63 or end < begin:
        raise unreadable(name, f"the shape or place of {key} makes no sense")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        what = sanitize(dtype, 20) if isinstance(dtype, str) else "no dtype at all"
        raise unreadable(name, f"{key} is stored as {what}; LoRAs are stored as {', '.join(_DTYPES)}")
    if math.prod(shape) * _DTYPES[dtype].itemsize != end - begin:
        raise unreadable(name, f"{key} has {end - begin} bytes, not what its shape needs")
    return Slot(_DTYPES[dtype], tuple(shape), begin, end)
