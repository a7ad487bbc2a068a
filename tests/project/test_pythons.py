"""Other Pythons are found, tested where they have the packages, and read every file where they have not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import pythons
from install import ROOT
from pythons import Python, asked, compiles, main, passes, sources

THIS = Path(sys.executable)


def test_an_interpreter_says_its_version_and_what_it_lacks() -> None:
    assert asked(THIS, ["torch", "no-such-package"]) == Python(THIS, sys.version_info[:3], ("no-such-package",))


def test_what_does_not_start_is_none(tmp_path: Path) -> None:
    shim = tmp_path / "python3.10"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    assert asked(shim, []) is None and asked(tmp_path / "absent", []) is None


def test_every_file_of_the_repository_is_compiled() -> None:
    files = sources()
    assert {ROOT / "__init__.py", ROOT / "nodes" / "merge.py", Path(__file__).resolve()} <= set(files)
    assert compiles(Python(THIS, sys.version_info[:3], ()), files) == ""


@pytest.mark.parametrize("source", ["def f(:\n", "x = '\\d'\n"])
def test_a_file_that_does_not_compile_or_warns_fails(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(source, encoding="utf-8")
    monkeypatch.setattr(pythons, "sources", lambda: [wrong])
    assert not passes(Python(THIS, (3, 10, 1), ("torch",)), [])
    said = capsys.readouterr().out
    assert "wrong.py" in said and "it has no torch" in said and ".venv-3.10" in said


@pytest.mark.parametrize(("source", "status"), [("def test_a(): pass", 0), ("def test_a(): assert False", 1)])
def test_the_unit_tests_run_where_nothing_is_missing(
    source: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    other = [Python(THIS, (3, 10, 1), ())]

    def found(packages: Sequence[str], home: Path) -> list[Python]:
        assert "torch" in packages and "ruff" not in packages
        return other

    monkeypatch.setattr(pythons, "found", found)
    assert main(["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]) == status


def test_versions_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pythons, "ROOT", tmp_path)
    assert main([]) == 0
    others = [minor for minor in range(10, 14) if minor != sys.version_info[1]]
    assert capsys.readouterr().out.splitlines() == [f"Python 3.{minor}: not on this machine" for minor in others]
