"""Files that are there whole or not at all: whatever happens to the process, the disk or another process meanwhile.

    write_atomically(path, chunks)                    # a new file; FileTakenError if the name is taken
    write_atomically(path, chunks, replace=True)      # the new content in place of the old
    write_numbered(folder, "merged", ".safetensors", lambda path: write_atomically(path, chunks))

What is written first is a temporary file in the same folder, whose name follows from the final one: it reserves that
name among our own processes, and it is locked for as long as its process lives. So one that nobody has locked was left
by a crash; the next save into that folder removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import BinaryIO

from ..errors import DuoLoraError, FileTakenError

if sys.platform != "win32":
    import fcntl

PREFIX, SUFFIX = ".duolora-", ".tmp"
"""Of temporary files: hidden, and with an ending that no list of models shows."""

_ABANDONED = 600.0
"""Seconds without a write after which a temporary file is removed where files cannot be locked."""


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview], *, replace: bool = False) -> Path:
    """Writes a file that appears under its name only when all of it is on the disk; makes the folder if there is none.

    Args:
        replace: take the place of an existing file; otherwise that is never touched

    Raises:
        FileTakenError: the file exists already, or another process is writing it at this moment.
        DuoLoraError: the folder cannot be written to, or the disk is full. Nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        _write(path, chunks, replace)
    except FileExistsError as error:
        raise FileTakenError(
            f"{path} exists already, or is being written, and is not replaced. Choose another name."
        ) from error
    except OSError as error:
        raise DuoLoraError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or allow writing there."
        ) from error
    return path


def write_numbered(folder: Path, stem: str, suffix: str, write: Callable[[Path], object]) -> Path:
    """Saves a new file `stem_00001<suffix>`; the number rises until the name is free, whoever else is saving.

    Args:
        write: called with a path; raises FileTakenError if that is taken

    Returns:
        the path that was written
    """
    pattern = re.compile(re.escape(stem) + r"_(\d{1,9})" + re.escape(suffix))
    found = (pattern.fullmatch(path.name) for path in folder.glob("*")) if folder.is_dir() else ()
    for number in count(max((int(match[1]) for match in found if match), default=0) + 1):
        path = folder / f"{stem}_{number:05}{suffix}"
        with contextlib.suppress(FileTakenError):  # another save took the number in the meantime
            write(path)
            return path
    raise AssertionError("unreachable")


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of processes that are no longer there."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):  # gone in the meantime, or not ours to remove
            _remove_if_abandoned(path)


def _write(path: Path, chunks: Iterable[bytes | memoryview], replace: bool) -> None:
    named = hashlib.sha256(path.name.casefold().encode()).hexdigest()[:16]  # short, where a name may be at its longest
    temporary = path.with_name(f"{PREFIX}{named}{SUFFIX}")
    file = _claimed(temporary)
    try:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":
            file.close()  # an open file cannot be renamed there
        if _publish(temporary, path, replace):
            temporary.unlink()
    except BaseException:
        if sys.platform == "win32":
            file.close()
        temporary.unlink(missing_ok=True)
        raise
    finally:
        file.close()  # ends the lock, and only now: whoever finds a temporary file without one removes it
    _sync_folder(path.parent)


def _claimed(temporary: Path) -> BinaryIO:
    """A new file, locked; raises FileExistsError where another process is at it."""
    while True:
        file = temporary.open("xb")
        if sys.platform == "win32":
            return file
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # between its making and its locking, somebody took it for abandoned


def _publish(temporary: Path, path: Path, replace: bool) -> bool:
    """Gives the finished file its name, in one step of the file system; whether the temporary name is still there."""
    if replace:
        temporary.replace(path)
        return False
    if sys.platform == "win32":
        temporary.rename(path)  # fails there on an existing name
        return False
    try:
        os.link(temporary, path)  # fails on an existing name
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT, some network drives)
        if os.path.lexists(path):  # our own processes are kept out by the temporary name, which each would need
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)
        return False
    return True


def _remove_if_abandoned(path: Path) -> None:
    if sys.platform == "win32":
        _remove_if_old(path)
        return
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            _remove_if_old(path)
            return
        if os.path.samestat(os.fstat(file.fileno()), path.lstat()):  # still the file that was locked
            path.unlink()


def _remove_if_old(path: Path) -> None:
    if time.time() - path.stat().st_mtime > _ABANDONED:
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Brings the new name itself onto the disk, where the system has a way; the file is whole in any case."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
