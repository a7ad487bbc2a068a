"""What the pack and its development stand on, with licences, and whether a vulnerability is known in it.

PYTHONPATH=tests .venv/bin/python -m dependencies            # the tables of docs/dependencies.md
PYTHONPATH=tests .venv/bin/python -m dependencies --audit    # asks the vulnerability service (make audit)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distributions, metadata
from pathlib import Path
from typing import Any

from install import ROOT

DOCUMENT = ROOT / "docs" / "dependencies.md"
_TOOLS_OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}
"""They come with Python, build the environment, and are no part of anything that we give away."""


def requirements() -> dict[str, list[str]]:
    """{requirements file: the packages that it names}."""
    found: dict[str, list[str]] = {}
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        named = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not line.startswith(("#", "-")))
        found[file] = [match[0] for match in named if match]
    return found


def licence(package: str) -> str:
    """By the metadata of what is installed: its SPDX expression, else the field's first line, else the classifier."""
    try:
        held = metadata(package)
    except PackageNotFoundError:
        return "not installed here"
    fields = held.get_all("License-Expression") or held.get_all("License") or [""]
    first = str(fields[0]).strip().splitlines()
    if first and len(first[0]) < 120:
        return first[0]
    classifiers = [each for each in held.get_all("Classifier") or [] if each.startswith("License ::")]
    return classifiers[0].rpartition(" :: ")[2] if classifiers else "see its own files"


def tables() -> str:
    """Markdown: one table for each requirements file."""
    parts: list[str] = []
    for file, packages in requirements().items():
        rows = "\n".join(f"| {package} | {licence(package)} |" for package in packages)
        parts.append(f"`{file}`\n\n| package | licence |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def audit() -> tuple[int, str]:
    """(exit status, one line or one for each vulnerability) for all that is installed beside this Python."""
    pins = {
        # "+cpu" marks a build; vulnerabilities are listed for the version.
        f"{each.name}=={each.version.partition('+')[0]}"
        for each in distributions()
        if each.name.lower() not in _TOOLS_OF_THE_ENVIRONMENT
    }
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "installed.txt"
        listed.write_text("\n".join(sorted(pins)), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return verdict(None)
    return verdict(done.stdout)


def verdict(printed: str | None) -> tuple[int, str]:
    """What to make of pip-audit's answer: only a vulnerability that was found is a failure."""
    try:
        packages: list[dict[str, Any]] = json.loads(printed or "")["dependencies"]
    except (ValueError, KeyError, TypeError):
        packages = []
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return 0, "audit: the vulnerability service cannot be reached from here; nothing was audited"
    found: list[str] = []
    for package in audited:
        for each in package["vulns"]:
            mended = ", ".join(each["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {each['id']}, mended in {mended}")
    skipped = len(packages) - len(audited)
    told = [f"audit: {len(audited)} packages audited, {skipped} unknown to the service, {len(found)} vulnerabilities"]
    return int(bool(found)), "\n".join([*told, *found])


if __name__ == "__main__":
    status, text = audit() if "--audit" in sys.argv else (0, tables())
    sys.stdout.write(f"{text}\n")
    sys.exit(status)
