"""Writing whole or not at all: nothing is replaced, a failure leaves nothing, and what a crash left goes at last."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duolora_core.errors import DuoLoraError, FileTakenError
from duolora_core.files.atomic_write import PREFIX, SUFFIX, write_atomically, write_numbered

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks and permissions of POSIX; runs on Linux and macOS")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_writing_makes_the_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    assert write_atomically(path, [b"one", memoryview(b"two")]) == path
    assert path.read_bytes() == b"onetwo"
    assert names(path.parent) == {"a.safetensors"}


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    """Not the 0600 of a temporary file: other users and services read models, too."""
    (tmp_path / "plain").touch()
    path = write_atomically(tmp_path / "a.safetensors", [b"x"])
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_longest_name_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (255 - len(".safetensors")) + ".safetensors")
    assert write_atomically(path, [b"x"]).read_bytes() == b"x"


def no_hard_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_an_existing_file_is_never_replaced(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"precious")
    if not links:
        monkeypatch.setattr(os, "link", no_hard_links)
    with pytest.raises(FileTakenError, match=r"a\.safetensors exists already"):
        write_atomically(path, [b"new"])
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == {"a.safetensors"}


def test_a_folder_without_hard_links_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_hard_links)
    assert write_atomically(tmp_path / "a.safetensors", [b"x"]).read_bytes() == b"x"
    assert names(tmp_path) == {"a.safetensors"}


def test_replacing_is_asked_for(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        path = write_atomically(tmp_path / "a.safetensors", [content], replace=True)
        assert path.read_bytes() == content
    assert names(tmp_path) == {"a.safetensors"}


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class Interruption(BaseException):
    """As the host's own interrupt: not an Exception."""


def interrupted(*_: object, **__: object) -> None:
    raise Interruption


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({(os, "fsync"): full_disk}, DuoLoraError),
        ({(os, "fsync"): interrupted}, Interruption),
        ({(os, "link"): interrupted}, Interruption),
        ({(os, "link"): no_hard_links, (Path, "rename"): full_disk}, DuoLoraError),
    ],
    ids=["disk full", "interrupted", "interrupted link", "no links and no rename"],
)
def test_a_write_that_fails_leaves_nothing(
    faults: dict[tuple[Any, str], Any], error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: a read-only folder stops no test that runs as root, and a full disk is no fixture."""
    (tmp_path / "other.safetensors").write_bytes(b"other")
    for (target, name), fault in faults.items():
        monkeypatch.setattr(target, name, fault)
    with pytest.raises(error) as caught:
        write_atomically(tmp_path / "a.safetensors", [b"x"])
    monkeypatch.undo()
    assert names(tmp_path) == {"other.safetensors"}
    if error is DuoLoraError:
        assert "a.safetensors" in str(caught.value) and "No space left" in str(caught.value)


def test_a_disk_that_ends_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """A real refusal by the system, by way of the largest size that it lets a process write."""
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DuoLoraError, match=r"Cannot write .*a\.safetensors.*Free some space"):
            write_atomically(tmp_path / "a.safetensors", [bytes(60_000)] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == set()


def test_content_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise MemoryError

    with pytest.raises(MemoryError):
        write_atomically(tmp_path / "a.safetensors", chunks())
    assert names(tmp_path) == set()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(DuoLoraError, match="taken"):
        write_atomically(tmp_path / "taken" / "deep" / "a.safetensors", [b"x"])


def test_a_name_is_taken_as_soon_as_its_file_is_being_written(tmp_path: Path) -> None:
    """Two saves at once: the second gets the next number; the first is not disturbed, also where links are missing."""

    def chunks() -> Iterator[bytes]:
        yield b"first"
        second = write_numbered(tmp_path, "merged", ".safetensors", lambda path: write_atomically(path, [b"second"]))
        assert second.name == "merged_00002.safetensors"

    def write(path: Path) -> None:
        write_atomically(path, chunks())

    first = write_numbered(tmp_path, "merged", ".safetensors", write)
    assert first.name == "merged_00001.safetensors"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "merged_00001.safetensors": b"first",
        "merged_00002.safetensors": b"second",
    }


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    for taken in ("m_00007.safetensors", "m_00009.masks.safetensors", "mm_00011.safetensors", "m_x.safetensors"):
        (tmp_path / taken).touch()
    for expected in ("m_00008.safetensors", "m_00009.safetensors"):
        path = write_numbered(tmp_path, "m", ".safetensors", lambda path: write_atomically(path, [b"x"]))
        assert path.name == expected


def test_what_a_killed_process_left_goes_with_the_next_save_and_what_is_alive_stays(tmp_path: Path) -> None:
    """The other process writes half a file and waits; our save leaves it alone until that process is killed."""
    script = (
        "import sys, time; from pathlib import Path; from duolora_core.files.atomic_write import write_atomically\n"
        "def chunks():\n"
        "    yield bytes(1_000_000); print('half', flush=True); time.sleep(600)\n"
        "write_atomically(Path(sys.argv[1]), chunks())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "theirs.safetensors")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"half\n"
            (left,) = names(tmp_path)
            assert left.startswith(PREFIX) and left.endswith(SUFFIX)
            write_atomically(tmp_path / "ours.safetensors", [b"x"])
            assert names(tmp_path) == {left, "ours.safetensors"}
        finally:
            other.kill()
        other.wait()
    write_atomically(tmp_path / "ours2.safetensors", [b"x"])
    assert names(tmp_path) == {"ours.safetensors", "ours2.safetensors"}
