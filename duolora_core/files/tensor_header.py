"""A look at the header of a safetensors file before the format's library parses it.

It bounds what the library does not (dimensions, keys, their number and length), refuses what the library takes (two
equal keys, dtypes of no LoRA), and finds a true sentence for files that are no safetensors files at all, or cut short.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..errors import LoraFileError
from .sanitize import sanitize

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 16 << 20
"""That of a LoRA of every layer of SDXL has 0.4 MB; some trainers add the tags of all their pictures, a few MB."""
MOST_KEYS = 30_000
"""A LoRA of every layer of SDXL and both text encoders has about 4,000."""
MOST_KEY_LENGTH = 256
MOST_DIMENSIONS = 8

DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8")
_DISGUISES = (
    (b"PK", "it is a PyTorch or zip file under another name, and such files can run code, so it is not opened"),
    (b"\x80", "it is a Python pickle under another name, and pickles can run code, so it is not opened"),
    (b"<", "it is a web page, perhaps of a site that wants you to log in"),
    (b"version ", "it is a Git LFS pointer; the file itself was not fetched"),
)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        entries: {key: {"dtype": …, "shape": […], "data_offsets": [begin, end]}} in the file's order; of a known dtype
            and a bounded shape, but whether they fit each other and the data is for the library to say
        size: bytes of data that follow
    """

    entries: Mapping[str, Mapping[str, Any]]
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
        LoraFileError: it is no JSON of the format, has too many or absurd entries, or not as much data.
    """
    try:
        table: Any = json.loads(raw, object_pairs_hook=_Objects(name))
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "its header is not JSON") from error
    if not isinstance(table, dict):
        raise unreadable(name, "its header is not a table")
    entries = cast(dict[str, Any], table)
    metadata = _metadata(entries.pop("__metadata__", None), name)
    for key, entry in entries.items():
        check_key(key, name)
        _check_entry(key, entry, name)
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if end != size:
        raise unreadable(name, f"its tensors take {end} bytes but {size} are there")
    return Header(entries, metadata, size)


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


def _check_entry(key: str, entry: Any, name: str) -> None:
    """What the library lets pass, or refuses in words that name no tensor."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(name, f"the entry of {key} has no dtype, shape and data_offsets") from error
    numbers = [*shape, begin, end] if isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS else [None]
    whole = all(type(each) is int and 0 <= each < 1 << 63 for each in numbers)
    # Strides are counted with a 0 taken for 1.
    if not whole or end < begin or math.prod(max(1, each) for each in shape) >= 1 << 63:
        raise unreadable(name, f"the shape or place of {key} makes no sense")
    if dtype not in DTYPES:
        what = sanitize(dtype, 20) if isinstance(dtype, str) else "no dtype at all"
        raise unreadable(name, f"{key} is stored as {what}; LoRAs are stored as {', '.join(DTYPES)}")
