"""Reading a safetensors file that a stranger made: nothing in it is believed before it is checked.

The format's library parses the bytes, which are read here and not mapped: of a mapped file that another program
shortens later (a trainer saving again, a download starting anew) the next look at a tensor ends the whole host by
SIGBUS. They are hashed on the way, so that hash and tensors are of the same bytes. The library copies what it is given,
so it is given one tensor at a time: a whole file would be there twice.

Source: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..errors import LoraFileError
from .sanitize import sanitize
from .tensor_header import LENGTH_BYTES, Header, header_length, parse_header, unreadable

MOST_BYTES = 8 << 30
"""A LoRA of SDXL at full rank in fp16 has about 5 GB; anything above this is a mistake or a trap."""

_CHUNK = 4 << 20


@dataclass(frozen=True)
class TensorFile:
    """What a file held while it was read.

    Attributes:
        name: the file's name, fit for messages
        sha256: of all its bytes, the very ones that `tensors` are made of
    """

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_tensors(path: Path, check: Callable[[str, Header], None]) -> TensorFile:
    """All tensors and metadata of a safetensors file, in memory of about its size and never mapped.

    Args:
        check: called with the file's name and its header before any tensor is read; raises what refuses the file

    Raises:
        LoraFileError: the file is missing, unreadable, no regular file, damaged, absurd, or changes while it is read.
    """
    name = sanitize(path.name)
    with open_regular(path) as file:
        try:
            before = os.fstat(file.fileno())
            digest = hashlib.sha256()
            header = _header(file, before.st_size, name, digest.update)
            check(name, header)
            tensors = _tensors(file, header, name, digest.update)
            after = os.fstat(file.fileno())
        except OSError as error:
            raise LoraFileError(f"{name} cannot be read ({error.strerror or error}). Check the disk.") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed(name)
    return TensorFile(name, digest.hexdigest(), tensors, header.metadata)


def open_regular(path: Path) -> BufferedReader:
    """A file to read bytes from; a link is followed to what it leads to, as the host does.

    Raises:
        LoraFileError: there is none, it may not be read, or it is a folder, pipe or device, which could block for ever.
    """
    name = sanitize(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LoraFileError(f"{name} is a folder, a pipe or a device, not a file. Remove it from the loras folder.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise LoraFileError(
            f"{name}: there is no such file. Refresh the list (press R) and choose it again."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise LoraFileError(f"{name} cannot be opened ({why}). Allow ComfyUI to read it.") from error


def file_sha256(path: Path) -> str:
    """Raises LoraFileError where the file cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        try:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except OSError as error:
            why = error.strerror or error
            raise LoraFileError(f"{sanitize(path.name)} cannot be read ({why}). Check the disk.") from error
    return digest.hexdigest()


def _header(file: BufferedReader, size: int, name: str, hashed: Callable[[bytes], None]) -> Header:
    if size > MOST_BYTES:
        raise LoraFileError(f"{name} has {size / 2**30:.0f} GB, more than any LoRA of SDXL. Choose a LoRA file.")
    start = file.read(LENGTH_BYTES)
    hashed(start)
    length = header_length(start, size, name)
    raw = file.read(length)
    if len(raw) != length:
        raise _changed(name)
    hashed(raw)
    return parse_header(raw, size - LENGTH_BYTES - length, name)


def _tensors(file: BufferedReader, header: Header, name: str, hashed: Callable[[bytes], None]) -> dict[str, Tensor]:
    """{key: tensor} in the header's order; read in the order of the data, as the only tensor of a file each."""
    try:
        torch.empty(header.size, dtype=torch.uint8)  # the library has no sentence for memory that is full
    except RuntimeError as error:  # how PyTorch says that the CPU has no memory left
        raise LoraFileError(f"{name}: no memory for its {header.size / 2**30:.1f} GB. Close other programs.") from error
    found: dict[str, Tensor] = {}
    place = 0
    for key, entry in sorted(header.entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != place:
            raise unreadable(name, f"{key} begins at byte {begin} of the data instead of {place}")
        data, place = file.read(end - begin), end
        if len(data) != end - begin:
            raise _changed(name)
        hashed(data)
        alone = json.dumps({key: {**entry, "data_offsets": [0, len(data)]}}).encode()
        try:
            found |= load(len(alone).to_bytes(LENGTH_BYTES, "little") + alone + data)
        except SafetensorError as error:
            raise unreadable(name, f"{key} has {len(data)} bytes, not what its shape needs") from error
    if file.read(1):
        raise _changed(name)
    return {key: found[key] for key in header.entries}


def _changed(name: str) -> LoraFileError:
    return LoraFileError(
        f"{name} changed while it was read. Wait until what writes it (a download, a training) has ended."
    )
