"""Where a new file goes: below one folder, whatever was written into the field for its name.

The name comes from whoever made the workflow, and must be one on every system: a file that Linux takes and Windows
cannot name, or shows as another, is no use to the next person.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from ..errors import SettingsError
from .sanitize import sanitize

_NOT_IN_NAMES = frozenset('<>:"|?*')
_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")  # emoji and Persian are written with them
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, formatting such as a change of direction, broken surrogates, line separators."""
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")})
_MOST_BYTES = 200
"""Of a name in UTF-8: file systems take 255, and a number and a suffix come on top."""
_MOST_FOLDERS = 8


def safe_path(root: Path, prefix: str) -> tuple[Path, str]:
    """The folder at or below `root` and the name, without number and suffix, that `prefix` means; makes nothing.

    Args:
        prefix: may name subfolders, "mine/merged", with / or \\

    Raises:
        SettingsError: the prefix leads out of the folder, also through a link, or is no name everywhere.
    """
    parts = [part.strip() for part in prefix.replace("\\", "/").split("/")]
    too_deep = "it has too many folders" if len(parts) > _MOST_FOLDERS else None
    why = too_deep or next((why for part in parts if (why := _refused(part))), None)
    if why is not None:
        raise SettingsError(
            f"filename_prefix '{sanitize(prefix, 80)}' cannot be used: {why}. It is a name such as "
            "'duolora/my_merge', relative to the loras folder, without '..', drive letters or special characters."
        )
    folder = root.joinpath(*parts[:-1])
    if not _within(folder, root):
        raise SettingsError(
            f"filename_prefix '{sanitize(prefix, 80)}' leads out of the loras folder through a link. Use another one."
        )
    return folder, parts[-1]


def _refused(part: str) -> str | None:
    """Why a name cannot be that of a file or folder; None if it can."""
    shown = f"'{sanitize(part, 40)}'"
    if part in ("", ".", ".."):
        return f"{shown} is not a name"
    if any(c in _NOT_IN_NAMES for c in part):
        return f"{shown} has one of the characters {' '.join(sorted(_NOT_IN_NAMES))}"
    if any(unicodedata.category(c) in _INVISIBLE and c not in _JOINERS for c in part):
        return f"{shown} has characters that are not seen"
    if part.endswith("."):
        return f"{shown} ends with a dot"
    if part.split(".")[0].strip().lower() in _DEVICES:
        return f"{shown} is a device on Windows"
    if len(part.encode()) > _MOST_BYTES:
        return f"{shown} is longer than {_MOST_BYTES} bytes"
    return None


def _within(folder: Path, root: Path) -> bool:
    try:
        return folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        return False
