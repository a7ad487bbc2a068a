"""Names of new files: below the folder or refused with a mend, for every text that a workflow may hold."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duolora_core.errors import DuoLoraError, SettingsError
from duolora_core.files.safe_path import safe_path
from duolora_core.lora.save import write_safetensors

WEIGHTS = {"a.lora_up.weight": torch.ones(64, 1024)}  # 256 kB

REFUSED = {
    "empty": "",
    "only spaces": "   ",
    "empty folder": "a//b",
    "absolute": "/etc/passwd",
    "up": "../evil",
    "up in the middle": "a/../../evil",
    "up, backslashes": "..\\evil",
    "up, spaces": "a/ .. /evil",
    "home is no name here": "a/./b",
    "drive letter": "C:/evil",
    "drive letter, backslash": "C:\\evil",
    "network share": "\\\\server\\share\\evil",
    "stream": "name:stream",
    "NUL": "a\0b",
    "line feed": "a\nb",
    "escape": "\x1b[31mred",
    "next line": "a\x85b",
    "turned around": "cod\u202egnp.exe",
    "half a character": "a\ud800",
    "wildcard": "a*b",
    "pipe": "a|b",
    "device": "CON",
    "device as a folder": "nul/a",
    "device with a suffix": "aux.backup",
    "device with a raised digit": "com¹",
    "trailing dot": "name.",
    "trailing dots in a folder": "folder.../a",
    "trailing dot and space": "name. ",
    "too long": "x" * 300,
    "too long in bytes": "猫" * 100,
    "too deep": "a/" * 50 + "b",
    "a megabyte": "y" * 1_000_000,
}
TAKEN = {
    "merged": ("", "merged"),
    "mine/merged": ("mine", "merged"),
    "mine\\merged": ("mine", "merged"),
    " mine / merged ": ("mine", "merged"),
    "猫/水彩 v2": ("猫", "水彩 v2"),
    "a.b.c": ("", "a.b.c"),
    ".hidden/x": (".hidden", "x"),
    "~/x": ("~", "x"),
    "console": ("", "console"),
    "👩\u200d🎨": ("", "👩\u200d🎨"),
    "%USERPROFILE%/$HOME": ("%USERPROFILE%", "$HOME"),
}


@pytest.mark.parametrize("prefix", REFUSED.values(), ids=REFUSED)
def test_what_is_no_name_everywhere_is_refused_with_a_mend(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="filename_prefix") as caught:
        safe_path(tmp_path, prefix)
    assert "duolora/my_merge" in str(caught.value)
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


@pytest.mark.parametrize(("prefix", "place"), TAKEN.items())
def test_names_are_taken_as_they_are(prefix: str, place: tuple[str, str], tmp_path: Path) -> None:
    assert safe_path(tmp_path, prefix) == (tmp_path / place[0], place[1])


PREFIXES = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(["..", ".", "", "a", "C:", "~", "link", "猫", "\\", "x" * 90, "NUL", " ", "\0", "file"]),
        max_size=6,
    ).map("/".join),
)


@settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(prefix=PREFIXES)
def test_no_text_writes_outside_of_the_folder(prefix: str) -> None:
    """Really written, to a folder that holds links out and into itself, and a file where a folder might be."""
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        root, outside = base / "loras", base / "outside"
        for folder in (root, outside):
            folder.mkdir()
        (root / "link").symlink_to(outside, target_is_directory=True)
        (root / "loop").symlink_to(root / "loop")
        (root / "file").write_bytes(b"")
        written = None
        try:
            folder, stem = safe_path(root, prefix)
            written = write_safetensors(folder / f"{stem}_00001.safetensors", {"t": torch.ones(1)}, {})
        except DuoLoraError as error:
            assert len(str(error)) < 2000
        files = {path for path in base.rglob("*") if path.is_file()} - {root / "file"}
        assert files == ({written} if written is not None else set())
        assert all(path.resolve().is_relative_to(root.resolve()) for path in files)
        assert not list(outside.iterdir())


def test_a_link_that_leads_out_or_to_itself_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "loras"
    root.mkdir()
    (root / "out").symlink_to(tmp_path, target_is_directory=True)
    (root / "broken").symlink_to(tmp_path / "nowhere")
    (root / "loop").symlink_to(root / "loop")
    for name in ("out", "broken", "loop"):
        with pytest.raises(SettingsError, match="through a link"):
            safe_path(root, f"{name}/merged")


def test_links_within_the_folder_and_the_folder_itself_may_be_used(tmp_path: Path) -> None:
    """Many people keep their models on another disk and link the whole folder."""
    disk = tmp_path / "disk"
    (disk / "real").mkdir(parents=True)
    (disk / "alias").symlink_to(disk / "real", target_is_directory=True)
    root = tmp_path / "loras"
    root.symlink_to(disk, target_is_directory=True)
    folder, stem = safe_path(root, "alias/merged")
    write_safetensors(folder / f"{stem}_00001.safetensors", WEIGHTS, {})
    assert (disk / "real" / "merged_00001.safetensors").is_file()


def test_a_link_at_the_files_own_name_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "loras", tmp_path / "precious"
    root.mkdir()
    (root / "merged_00001.safetensors").symlink_to(outside)  # leads to nothing yet
    with pytest.raises(DuoLoraError, match="exists already"):
        write_safetensors(root / "merged_00001.safetensors", WEIGHTS, {})
    assert not outside.exists()


@contextmanager
def somebody_else() -> Generator[None, None, None]:
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions; runs on Linux and macOS")
@pytest.mark.parametrize("prefix", ["merged", "new/merged"])
def test_a_folder_that_may_not_be_written_is_named(prefix: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o555)
        try:
            with somebody_else(), pytest.raises(DuoLoraError, match=r"Permission denied") as caught:
                folder, stem = safe_path(root, prefix)
                write_safetensors(folder / f"{stem}_00001.safetensors", WEIGHTS, {})
        finally:
            root.chmod(0o755)
        assert str(root) in str(caught.value)
        assert not list(root.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE; runs on Linux and macOS")
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    """A real limit on the length of files, which the system enforces in the middle of the write."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DuoLoraError, match=r"Cannot write .*full_00001\.safetensors.*Free some space"):
            write_safetensors(tmp_path / "full_00001.safetensors", WEIGHTS, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
