"""comfy-cli, with which the registry's packs are checked and packed; it is told to send nothing to anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from install import ROOT

COMMAND = (str(Path(sys.executable).with_name("comfy")), "--skip-prompt", "--no-enable-telemetry")
PASSED = "All validation checks passed successfully"


def ran(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with settings of its own and both outputs as one."""
    with tempfile.TemporaryDirectory() as home:
        silent = {"HOME": home, "XDG_CONFIG_HOME": home, "DO_NOT_TRACK": "1", "POSTHOG_API_KEY": "", "NO_COLOR": "1"}
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder,
            env={**os.environ, **silent},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def faults(folder: Path = ROOT) -> str:
    """What `comfy node validate` has against a pack, warnings too; nothing if it passes."""
    done = ran("node", "validate", folder=folder)
    passed = done.returncode == 0 and PASSED in done.stdout and "warning" not in done.stdout.lower()
    return "" if passed else done.stdout


def packed(folder: Path) -> Path:
    """The archive that an install from the registry unpacks, in a folder.

    Raises:
        RuntimeError: comfy-cli made none; with what it said.
    """
    made = ROOT / "node.zip"
    done = ran("node", "pack")
    if not made.is_file():
        raise RuntimeError(f"comfy node pack made no {made.name}: {done.stdout}")
    return Path(shutil.move(made, folder / made.name))
