"""The repository's address stands in pyproject.toml; whatever else names it says the same, and says what works yet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from install import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_WORDS = {".md", ".json", ".toml", ".yml", ".yaml", ".py", ".html", ".js", ".css", ".cff"}
OF_OURS = re.compile(r"(?:github\.com|raw\.githubusercontent\.com)[/:]([\w.-]+/[\w.-]*DuoLoRA[\w-]*)", re.IGNORECASE)
PUBLISHED = ("comfy node install", "Comfy registry", "ComfyUI Manager", "git clone")
"""What leads to the address or the registry: nothing is there before the first release."""


def repository() -> str:
    """`owner/name`, from the one line that says it."""
    (address,) = re.findall(r'^Repository = "https://github\.com/([^"]+)"$', PYPROJECT, re.MULTILINE)
    return address


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs a git checkout: what is ours is what git tracks")
    return [ROOT / name for name in done.stdout.split("\0") if Path(name).suffix in IN_WORDS]


def released() -> bool:
    """Whether the changelog has a version with a date."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.search(r"^## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", changelog, re.MULTILINE) is not None


def install_lines() -> list[str]:
    section = README.split("## Install\n")[1].split("\n## ")[0]
    return re.findall(r"^- .*(?:\n  .*)*", section, re.MULTILINE)


def test_every_address_of_ours_is_that_of_pyproject() -> None:
    """In README, SECURITY, CHANGELOG, help pages, locales, workflows and code."""
    wrong = {
        f"{path.relative_to(ROOT)}: {found}"
        for path in tracked()
        if path.exists() and path != Path(__file__).resolve()
        for found in OF_OURS.findall(path.read_text(encoding="utf-8"))
        if found.removesuffix(".git") != repository()
    }
    assert wrong == set()


def test_the_folder_for_custom_nodes_is_named_like_the_repository() -> None:
    """ComfyUI's templates are listed under the folder's name, so that the first steps call it so."""
    name = repository().partition("/")[2]
    assert f"choose **{name}**" in README


def test_what_works_today_stands_first_in_the_readme() -> None:
    first, *others = install_lines()
    assert "this folder" in first and "custom_nodes" in first
    assert not any(way in first for way in PUBLISHED)
    assert {way for way in PUBLISHED if any(way in line for line in others)} == set(PUBLISHED)


@pytest.mark.parametrize("way", PUBLISHED)
def test_what_does_not_work_yet_says_so_at_the_line(way: str) -> None:
    (line,) = [line for line in install_lines() if way in line]
    assert released() != ("from the first release on" in line)
