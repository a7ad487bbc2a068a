"""LoRA files, found and saved only under the folders that ComfyUI is configured with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...duolora_core.errors import LoraFileError
from ...duolora_core.files.atomic_write import write_numbered
from ...duolora_core.files.safe_path import safe_path
from ...duolora_core.files.sanitize import sanitize

MASKS_SUFFIX = ".masks.safetensors"


def lora_names() -> list[str]:
    """The LoRA files of all configured folders, as the host lists them, without our masks files."""
    return [name for name in folder_paths.get_filename_list("loras") if not name.endswith(MASKS_SUFFIX)]


def masks_names() -> list[str]:
    """The masks files among them."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(MASKS_SUFFIX)]


def checkpoint_folder() -> Path:
    """Where trainings are kept that have not ended: of this installation, not listed and not served to anyone.

    The host empties its own temporary folder when it starts, and shows no folder of users that begins with __.
    """
    return Path(folder_paths.get_user_directory()) / "__duolora" / "unfinished"


def saving_folder() -> Path:
    """The loras folder into which files are saved."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def free_bytes(folder: Path) -> int:
    """Of the disk on which a folder is, or will be."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(there).free


def lora_path(name: str) -> Path:
    """Raises LoraFileError if there is no such file any more."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise LoraFileError(
            f"{sanitize(name)} is not in the loras folders. Refresh the list (press R) and choose it again."
        )
    return Path(path)


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
    root = saving_folder()
    folder, stem = safe_path(root, prefix)
    return write_numbered(folder, stem, suffix, write).relative_to(root).as_posix()
