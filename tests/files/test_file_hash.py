"""A file's hash follows its content, whatever its times say, and an untouched file is not read again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from duolora_core.errors import LoraFileError
from duolora_core.files import file_hash as module
from duolora_core.files.file_hash import TICK, file_hash

LONG_AGO = 1_600_000_000_000_000_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is read whole, as the reading really happens."""
    seen: list[Path] = []
    real: Callable[[Path], str] = module.file_sha256

    def reading(path: Path) -> str:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(module, "file_sha256", reading)
    return seen


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seconds later."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + TICK + 1)


def test_a_settled_file_is_read_once(file: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    assert {file_hash(file) for _ in range(3)} == {sha256(b"first")}
    assert len(reads) == 1


def test_the_same_size_within_the_same_tick(file: Path, reads: list[Path]) -> None:
    """Just written: nothing about the file tells the two contents apart, so it is read each time."""
    for content in (b"first", b"other", b"third"):
        file.write_bytes(content)
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))
        assert file_hash(file) == sha256(content)
    assert len(reads) == 3


@pytest.mark.skipif(os.name != "posix", reason="the time of the last change to an entry; runs on Linux and macOS")
def test_times_that_a_tool_has_copied_do_not_hide_a_change(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewritten in place with the old modification time and size, and replaced by another file of the same."""
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    settle(monkeypatch)
    assert file_hash(file) == sha256(b"first")
    time.sleep(0.02)  # the clock of file systems ticks every few milliseconds
    file.write_bytes(b"other")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    settle(monkeypatch)
    assert file_hash(file) == sha256(b"other")
    replacement = file.with_name("b")
    replacement.write_bytes(b"third")
    os.utime(replacement, ns=(LONG_AGO, LONG_AGO))
    replacement.replace(file)
    assert file_hash(file) == sha256(b"third")


def test_a_file_that_changes_while_it_is_read_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Path], str] = module.file_sha256
    contents = iter([b"grown to more", b"and to even more"])

    def disturbed(path: Path) -> str:
        found = real(path)
        for content in contents:
            path.write_bytes(content)
            break
        return found

    monkeypatch.setattr(module, "file_sha256", disturbed)
    assert file_hash(file) == sha256(b"and to even more")


def test_a_file_that_never_stops_changing_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(path: Path) -> str:
        path.write_bytes(path.read_bytes() + b"more")
        return ""

    monkeypatch.setattr(module, "file_sha256", growing)
    with pytest.raises(LoraFileError, match=r"a\.safetensors is being written"):
        file_hash(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "none")
