"""A target that is asked for by name fails where nothing ran; `make test` as a whole does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from install import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TESTS = "import pytest\ndef test_a():\n    pass\n"
SKIPPING = TESTS + "def test_b():\n    pytest.skip('no ComfyUI found')\n"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_skipped_test_fails_what_must_run(workers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING, encoding="utf-8")
    done = run(tmp_path, "-p", "must_run", *workers)
    assert done.returncode == 1
    assert "FAILED: 1 tests did not run: no ComfyUI found" in done.stdout


def test_without_a_skipped_test_it_passes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    assert run(tmp_path, "-p", "must_run").returncode == 0


def test_without_the_plugin_a_skipped_test_passes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING, encoding="utf-8")
    assert run(tmp_path).returncode == 0


@pytest.mark.parametrize("target", ["test-host", "test-browser"])
def test_make_asks_for_it(target: str) -> None:
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None and "$(MUST_RUN)" in recipe[1]


def test_make_test_lets_hosts_be_missing() -> None:
    assert "$(MAKE) --no-print-directory test-host MUST_RUN=\n" in MAKEFILE


@pytest.mark.parametrize("name", ["robust", "host.card", "benchmarks.real_size", "wild_loras", "try_install"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the trainers' packages, as they are imported
def test_the_long_ones_fail_without_a_host(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(name if name == "try_install" else f"{name}.__main__")
    monkeypatch.setattr(module, "find_hosts", list)
    monkeypatch.setattr(sys, "argv", [name])
    assert module.main() == 2
    assert "no ComfyUI found" in capsys.readouterr().err
