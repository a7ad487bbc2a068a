"""Which files an install from the registry contains: what git tracks, without what .comfyignore names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def installed_files() -> list[Path]:
    """Relative to the root. Patterns mean what they mean in a .gitignore: git itself reads them."""
    left_out = _listed("--cached", "--ignored", "--exclude-from=.comfyignore")
    return [Path(name) for name in sorted(_listed() - left_out) if (ROOT / name).exists()]


def _listed(*flags: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs a git checkout: what an install contains is what git tracks")
    return set(done.stdout.split("\0")) - {""}
