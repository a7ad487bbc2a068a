"""What a process does to the outside, by Python's own audit events (PEP 578): network, processes, code, files.

Needs nothing but the standard library, so that it can be loaded into a ComfyUI as well. A hook cannot be taken out
again, so a `Watch` is switched on and off. What native code does by itself raises no event; ours has none.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NETWORK = ("socket.", "http.client.", "urllib.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "ssl.")
PROCESSES = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "pty.")
CODE = ("exec", "compile", "pickle.find_class", "marshal.load", "ctypes.dlopen", "code.__new__", "webbrowser.")
FILES = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1}
"""Events that change files, and how many of their arguments are paths."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STANDARD_LIBRARY = str(Path(os.__file__).parent)
_HARMLESS = ("socket.__new__", "socket.gethostname")


class Watch:
    """Collects what is done while it is on.

    Args:
        folders: the only ones below which files may be written
        code_of: code made from data counts only where a file below this folder asks for it; None: it always counts.
            A host makes namedtuples, which Python does by `eval`.
    """

    def __init__(self, folders: Sequence[Path], code_of: Path | None = None):
        self.code_of = code_of
        self.folders = [os.path.realpath(folder) for folder in folders]
        self.found: list[str] = []
        self._on = False
        self._within = threading.local()
        sys.addaudithook(self._hook)

    @contextmanager
    def on(self) -> Generator[list[str], None, None]:
        """The events that are seen inside the block."""
        self.found, self._on = [], True
        try:
            yield self.found
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or getattr(self._within, "hook", False):
            return
        self._within.hook = True  # what the hook itself does raises events, too
        try:
            told = self._told(event, arguments)
        finally:
            self._within.hook = False
        if told is not None:
            self.found.append(f"{event}: {told}, from {_caller()}")

    def _told(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """What of an event is against the rules; None if nothing is."""
        if event.startswith((*NETWORK, *PROCESSES)):
            return None if event in _HARMLESS else f"{arguments!r:.200}"
        if event.startswith(CODE):
            # Code that an import runs lies in files of the installation; a library may import late.
            theirs = self.code_of is not None and not _asked_for_below(self.code_of)
            return None if theirs or _importing() else f"{arguments!r:.200}"
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
            return self._outside(path) if writes and not _importing() else None
        return next((why for path in arguments[: FILES.get(event, 0)] if (why := self._outside(path))), None)

    def _outside(self, path: object) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None  # an open file's number
        real = os.path.realpath(os.fsdecode(path))
        inside = any(os.path.commonpath([real, folder]) == folder for folder in self.folders)
        return None if inside or real == os.devnull else f"writes {real}"


def _importing() -> bool:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _asked_for_below(folder: Path) -> bool:
    """Whether the innermost file that is neither Python's nor an installed package's lies below this folder."""
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not (file.startswith((_STANDARD_LIBRARY, "<")) or file == __file__ or "site-packages" in file):
            return file.startswith(os.fspath(folder))
        frame = frame.f_back
    return False


def _caller() -> str:
    """The innermost few lines of Python, for whoever reads a failure."""
    frame, lines = inspect.currentframe(), list[str]()
    while frame is not None and len(lines) < 6:
        if frame.f_code.co_filename != __file__:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines)
