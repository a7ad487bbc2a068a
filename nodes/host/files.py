"""LoRA files, found and saved only under the folders that ComfyUI is configured with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from pathlib import Path

import folder_paths

from ...duolora_core.errors import FileTakenError, LoraFileError
from ...duolora_core.save_name import save_place
from ...duolora_core.tensor_file import file_sha256, open_regular
from ...duolora_core.texts import printable

MASKS_SUFFIX = ".masks.safetensors"


def lora_names() -> list[str]:
    """The LoRA files of all configured folders, as the host lists them, without our masks files."""
    return [name for name in folder_paths.get_filename_list("loras") if not name.endswith(MASKS_SUFFIX)]


def masks_names() -> list[str]:
    """The masks files among them."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(MASKS_SUFFIX)]


def lora_path(name: str) -> Path:
    """Raises LoraFileError if there is no such file any more."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise LoraFileError(
            f"{printable(name)} is not in the loras folders. Refresh the list (press R) and choose it again."
        )
    return Path(path)


def content_hash(path: Path) -> str:
    """sha256 of a file; computed again only when its size or time changed.

    Raises:
        LoraFileError: the file cannot be read.
    """
    with open_regular(path) as file:
        stat = os.fstat(file.fileno())
    return _content_hash(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _content_hash(path: Path, _mtime_ns: int, _size: int) -> str:
    return file_sha256(path)


def save_numbered(prefix: str, suffix: str, write: Callable[[Path], object]) -> str:
    """Saves a new file `prefix_00001<suffix>` in the first loras folder; the number rises until the name is free.

    Args:
        prefix: may name subfolders, "mine/merged"
        write: called with a path; raises FileTakenError if that exists

    Returns:
        the name under which the LoRA list shows it

    Raises:
        SettingsError: the prefix leads out of the loras folder or is not a file name.
    """
    root = Path(folder_paths.get_folder_paths("loras")[0])
    folder, stem = save_place(root, prefix)
    for number in count(_next_number(folder, stem, suffix)):
        path = folder / f"{stem}_{number:05}{suffix}"
        try:
            write(path)
        except FileTakenError:
            continue  # another save took the number in the meantime
        return path.relative_to(root).as_posix()
    raise AssertionError("unreachable")


def _next_number(folder: Path, stem: str, suffix: str) -> int:
    pattern = re.compile(re.escape(stem) + r"_(\d+)" + re.escape(suffix) + "$")
    taken = (
        [int(match[1]) for path in folder.glob("*") if (match := pattern.match(path.name))] if folder.is_dir() else []
    )
    return max(taken, default=0) + 1
