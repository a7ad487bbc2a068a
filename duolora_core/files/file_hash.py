"""What is in a file, in 64 letters: read whole once, and again only when it may have changed.

A file of another time, size or place on the disk is another file. Times are coarse, though: a file that is written
twice within one tick looks the same after the second time. So a hash is remembered only if the file had been left alone
for some seconds when it was read; before that, it is read every time.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path

from ..errors import LoraFileError
from .tensor_file import file_sha256

TICK = 3.0
"""Seconds. The coarsest clock of a file system in use is FAT's, which counts in steps of two."""

_TRIES = 3

_State = tuple[int, int, int, int, int]


def file_hash(path: Path) -> str:
    """sha256 of a file's content.

    Raises:
        OSError: there is no such file, or it cannot be read.
        LoraFileError: it does not stop changing.
    """
    for _ in range(_TRIES):
        before = _state(path)
        settled = time.time() - max(before[:2]) / 1e9 > TICK
        found = _remembered(path, before) if settled else file_sha256(path)
        if _state(path) == before:  # else it changed while it was read
            return found
    raise LoraFileError(f"{path.name} is being written at this moment. Wait until it is complete, and queue again.")


def _state(path: Path) -> _State:
    """Both times first. That of the last change to its entry cannot be set back by a tool that copies times."""
    found: os.stat_result = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


@lru_cache(maxsize=256)
def _remembered(path: Path, _state: _State) -> str:
    return file_sha256(path)
