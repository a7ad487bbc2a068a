"""The unit tests on every other Python 3.10 to 3.13 of this machine; where packages are missing, the syntax alone.

PYTHONPATH=tests .venv/bin/python -m pythons [arguments of pytest]

A Python is looked for in `.venv-3.10` and its like, on the PATH, and where pyenv and uv keep theirs. Ends with 1 if a
test fails or a file does not compile; what was left out, and how to have it, is said in a line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dependencies import requirements
from install import ROOT

MINORS = range(10, 14)
TREES = ("benchmarks", "duolora_core", "nodes", "tests")
NOT_FOR_TESTS = {"pip-audit", "playwright", "pyright", "ruff"}
"""Development packages that no unit test imports."""
ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
missing = []
for name in sys.argv[1:]:
    try:
        version(name)
    except PackageNotFoundError:
        missing.append(name)
print(json.dumps([list(sys.version_info[:3]), missing]))
"""
COMPILE = """
import sys
for name in sys.stdin.read().split("\\0"):
    with open(name, "rb") as file:
        compile(file.read(), name, "exec", dont_inherit=True)
"""


@dataclass(frozen=True)
class Python:
    """An interpreter, its version, and what the unit tests need and it has not."""

    path: Path
    version: tuple[int, int, int]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        return "Python " + ".".join(map(str, self.version))


def candidates(minor: int, home: Path) -> Iterator[Path]:
    """Where a Python 3.`minor` may be; that with the packages, if any, comes first."""
    yield ROOT / f".venv-3.{minor}" / "bin" / "python"
    on_path = shutil.which(f"python3.{minor}")
    if on_path:
        yield Path(on_path)
    for pattern in (f".pyenv/versions/3.{minor}.*", f".local/share/uv/python/cpython-3.{minor}.*"):
        yield from (folder / "bin" / f"python3.{minor}" for folder in sorted(home.glob(pattern)))


def asked(path: Path, packages: Sequence[str]) -> Python | None:
    """What an interpreter says of itself; None where it does not start, as a pyenv shim of a version not chosen."""
    try:
        done = subprocess.run([path, "-c", ASK, *packages], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version, missing = json.loads(done.stdout)
    return Python(path, tuple(version), tuple(missing))


def found(packages: Sequence[str], home: Path) -> list[Python]:
    """One for each minor version but this process's own: the first that lacks nothing, else the first."""
    chosen: list[Python] = []
    for minor in MINORS:
        answers = [asked(path, packages) for path in candidates(minor, home)]
        here = [each for each in answers if each and each.version[:2] == (3, minor) != sys.version_info[:2]]
        chosen += sorted(here, key=lambda each: bool(each.missing))[:1]
    return chosen


def compiles(python: Python, files: Sequence[Path]) -> str:
    """The error of the first file that this Python does not read, or reads with a warning; else nothing."""
    names = "\0".join(str(file) for file in files)
    command = [python.path, "-W", "error", "-c", COMPILE]
    return subprocess.run(command, input=names, capture_output=True, text=True, check=False).stderr


def sources() -> list[Path]:
    """Every Python file of ours; an environment or a ComfyUI may lie in the same folder."""
    return [ROOT / "__init__.py", *(path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py")))]


def passes(python: Python, arguments: Sequence[str]) -> bool:
    """Runs the unit tests, or compiles every file where their packages are not at hand; says which."""
    if not python.missing:
        print(f"{python.name}: the unit tests", flush=True)  # noqa: T201
        return subprocess.run([python.path, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode == 0
    files = sources()
    error = compiles(python, files)
    short = f"3.{python.version[1]}"
    print(  # noqa: T201
        f"{python.name}: {error or f'all {len(files)} files compile'}; no unit tests: it has no "
        f"{', '.join(python.missing)} (make VENV=.venv-{short} PYTHON={python.path} unit installs them)",
        flush=True,
    )
    return not error


def main(arguments: Sequence[str]) -> int:
    packages = [name for names in requirements().values() for name in names if name not in NOT_FOR_TESTS]
    pythons = found(packages, Path.home())
    absent = {minor for minor in MINORS if (3, minor) != sys.version_info[:2]} - {each.version[1] for each in pythons}
    for minor in sorted(absent):
        print(f"Python 3.{minor}: not on this machine")  # noqa: T201
    return 0 if all([passes(each, arguments) for each in pythons]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
