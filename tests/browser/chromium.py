"""The Chromium of this machine: where it is, how to get one. Playwright drives it and brings none of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_ENABLE = (
    "no Chromium found: `make test-browser` installs Debian's where it may; else install chromium or google-chrome, "
    "or set CHROMIUM to its executable"
)
ARGUMENTS = (
    "--no-sandbox",  # a container's root has none; the pages are our own server's
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> Path | None:
    """$CHROMIUM, else the first of the usual names on the PATH."""
    named = os.environ.get("CHROMIUM")
    found = named if named and Path(named).is_file() else next(filter(None, map(shutil.which, NAMES)), None)
    return Path(found) if found else None
