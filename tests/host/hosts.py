"""The ComfyUI checkouts on this machine, and what their processes are started with.

The test process never imports ComfyUI: a host runs under its own python, offline.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOW_TO_ENABLE = (
    "no ComfyUI found: check one out as ~/comfy/ComfyUI-<version> with a .venv of its own, "
    "or set COMFYUI_PATH to its folder"
)


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout and the python that runs it."""

    path: Path
    version: str
    python: Path

    @classmethod
    def at(cls, path: Path) -> Host:
        """Read the version of the checkout and find its virtual environment."""
        text = (path / "comfyui_version.py").read_text(encoding="utf-8")
        match = re.search(r'__version__\s*=\s*"([^"]+)"', text)
        python = path / ".venv" / "bin" / "python"
        return cls(path, match[1] if match else path.name, python if python.exists() else Path(sys.executable))

    def run_script(self, script: Path, *arguments: str | Path, timeout: float = 300) -> str:
        """Run a script under the host's python; returns its output."""
        command = [str(self.python), str(script), *map(str, arguments)]
        done = subprocess.run(
            command, env=offline_environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed under ComfyUI {self.version}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def ask(self, script: Path, *arguments: str | Path, timeout: float = 300) -> dict[str, Any]:
        """The JSON object that a script prints as its last line under the host's python."""
        printed = self.run_script(script, "--host", self.path, *arguments, timeout=timeout)
        answer: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return answer


def find_hosts() -> list[Host]:
    """Every ~/comfy/ComfyUI-* folder with a main.py, and every folder named in COMFYUI_PATH."""
    folders = sorted(Path("~/comfy").expanduser().glob("ComfyUI-*"))
    folders += [Path(part).expanduser() for part in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if part]
    unique = dict.fromkeys(folder.resolve() for folder in folders if (folder / "main.py").is_file())
    return [Host.at(folder) for folder in unique]


def offline_environment() -> dict[str, str]:
    """The environment without the test process's python settings, and with downloads switched off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PIP_NO_INDEX": "1", "DO_NOT_TRACK": "1"}
    # A waiting torch thread sleeps instead of spinning: on a busy machine that is an order of magnitude.
    return kept | offline | {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
