"""What the Comfy registry gets: a small install with all that the pack needs, and metadata by the registry's rules.

The rules are those of docs.comfy.org/registry/specifications and of comfy-cli, which checks and packs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import registry_cli
from duolora_core.lora.metadata import VERSION
from install import ROOT, installed_files
from project.test_import_direction import HOST_MODULES, imports

NEEDED = {"__init__.py", "nodes", "duolora_core", "web", "locales", "workflows", "requirements.txt", "pyproject.toml"}
FOR_READERS = {"README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"}
MOST_BYTES = 2_000_000
ACCELERATORS = {
    "GPU :: NVIDIA CUDA",
    "GPU :: AMD ROCm",
    "GPU :: Intel Arc",
    "NPU :: Huawei Ascend",
    "GPU :: Apple Metal",
}
PYPI_NAMES = {"PIL": "pillow"}  # where a package is imported under another name


@pytest.fixture(scope="module")
def installed() -> list[Path]:
    return installed_files()


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_install_holds_what_runs_and_nothing_of_the_workshop(installed: list[Path]) -> None:
    found = {path.parts[0] for path in installed}
    assert found >= NEEDED, "left out or not yet tracked by git: see .comfyignore"
    assert found <= NEEDED | FOR_READERS, "new at the root: name it here, or in .comfyignore if it is for developers"


def test_install_is_small(installed: list[Path]) -> None:
    sizes = sorted(((ROOT / path).stat().st_size, str(path)) for path in installed)
    assert sum(size for size, _ in sizes) < MOST_BYTES, f"the largest files: {sizes[-5:]}"


def test_install_imports_only_what_it_declares(installed: list[Path], pyproject: dict[str, Any]) -> None:
    """Nothing to install beside what ComfyUI brings: both lists are one, and the code keeps to it."""
    declared = set(pyproject["project"]["dependencies"])
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert declared == {line for line in listed if line and not line.startswith("#")}
    host = HOST_MODULES | {"comfy_api"}
    for path in installed:
        if path.suffix == ".py":
            for line, level, module in imports((ROOT / path).read_text(encoding="utf-8")):
                top = module.partition(".")[0]
                if level == 0 and top not in host | sys.stdlib_module_names:
                    assert PYPI_NAMES.get(top, top) in declared, f"{path}:{line} imports {module}"


def test_name_and_version_are_the_registrys(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    assert re.fullmatch(r"[a-z](?:[a-z0-9]|[-_.](?![-_.])){1,98}", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["description"] and project["license"] and project["urls"]["Repository"]
    assert project["version"] == VERSION
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    # .github/workflows/publish.yml reads the version with sed, by this beginning of a line.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r"^version = (.*)$", text, re.MULTILINE) == [f'"{project["version"]}"']


def test_one_unknown_classifier_would_drop_them_all(pyproject: dict[str, Any]) -> None:
    """The registry knows few systems and accelerators, and with one that it does not know it takes none."""
    classifiers: list[str] = pyproject["project"]["classifiers"]
    systems = {each.removeprefix("Operating System :: ") for each in classifiers if each.startswith("Operating System")}
    accelerators = {each.removeprefix("Environment :: ") for each in classifiers if each.startswith("Environment")}
    assert systems == {"OS Independent"}
    assert accelerators <= ACCELERATORS


def test_tool_comfy_is_complete(pyproject: dict[str, Any]) -> None:
    comfy, repository = pyproject["tool"]["comfy"], pyproject["project"]["urls"]["Repository"]
    owner = comfy["PublisherId"]
    assert repository.startswith(f"https://github.com/{owner}/")
    workflow = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert f"github.repository_owner == '{owner}'" in workflow
    assert comfy["DisplayName"]
    assert comfy["includes"] == []
    for bound in comfy["requires-comfyui"].split(","):
        assert re.fullmatch(r"(==|>=|<=|!=|~=|>|<)\d+\.\d+\.\d+", bound)
    assert comfy.keys() <= {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui", "includes"}


def test_comfy_cli_has_nothing_against_the_pack() -> None:
    assert registry_cli.faults() == ""


def test_comfy_cli_refuses_a_pack_without_a_version(tmp_path: Path) -> None:
    """So that its yes means something."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(re.sub(r"(?m)^version = .*$", 'version = ""', text), encoding="utf-8")
    assert "version is empty" in registry_cli.faults(tmp_path)


@pytest.mark.parametrize(("key", "most"), [("Icon", (800, 400)), ("Banner", (2100, 900))])
def test_pictures_are_in_the_repository(pyproject: dict[str, Any], key: str, most: tuple[int, int]) -> None:
    """Their addresses lead to files of this repository, no larger than the registry takes."""
    address: str | None = pyproject["tool"]["comfy"].get(key)
    if address is None:
        assert key != "Icon"
        return
    repository = pyproject["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    base = f"https://raw.githubusercontent.com/{repository}/main/"
    assert address.startswith(base)
    with Image.open(ROOT / address.removeprefix(base)) as picture:
        assert picture.width <= most[0] and picture.height <= most[1]
