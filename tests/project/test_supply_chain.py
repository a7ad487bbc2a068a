"""Nobody let in: no network, no process, no code out of data, no file outside of its folder; known dependencies."""

from __future__ import annotations

import ast
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_hook import Watch
from dependencies import DOCUMENT, requirements, verdict
from install import ROOT, installed_files
from project.test_import_direction import imports

FORBIDDEN_MODULES = {
    *(
        "socket",
        "ssl",
        "http",
        "urllib",
        "ftplib",
        "smtplib",
        "imaplib",
        "poplib",
        "telnetlib",
        "xmlrpc",
        "socketserver",
    ),
    *("requests", "httpx", "aiohttp", "urllib3", "websocket", "websockets", "huggingface_hub", "webbrowser"),
    *("subprocess", "multiprocessing", "pty", "ctypes", "cffi", "code", "codeop", "runpy", "importlib", "pip"),
    *("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "dbm", "zipimport", "builtins"),
}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_ATTRIBUTES = {
    **{("os", name): "starts a process" for name in ("system", "popen", "fork", "forkpty", "startfile", "kill")},
    **{
        ("os", f"{kind}{how}"): "starts a process" for kind in ("exec", "spawn") for how in ("l", "le", "v", "ve", "vp")
    },
    ("torch", "load"): "unpickles",
    ("torch", "save"): "pickles",
    ("torch", "hub"): "downloads",
    ("torch", "compile"): "starts a compiler",
    ("torch", "jit"): "compiles",
    ("np", "load"): "may unpickle",
    ("numpy", "load"): "may unpickle",
}


def faults(source: str, path: Path) -> list[str]:
    """What a file of the pack does against the rules, by its syntax."""
    found = [
        f"{path}:{line} imports {module}"
        for line, level, module in imports(source)
        if level == 0 and module.partition(".")[0] in FORBIDDEN_MODULES
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            found.append(f"{path}:{node.lineno} uses {node.id}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            why = FORBIDDEN_ATTRIBUTES.get((node.value.id, node.attr))
            found += [f"{path}:{node.lineno} {why}"] if why else []
    return found


def test_no_file_of_the_pack_reaches_out_or_runs_data() -> None:
    files = [path for path in installed_files() if path.suffix == ".py"]
    assert len(files) > 50
    assert [each for path in files for each in faults((ROOT / path).read_text(encoding="utf-8"), path)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "def f():\n    import urllib.request",
        "from requests import get",
        "import subprocess as s",
        "from pickle import loads",
        "eval('1')",
        "run = exec",
        "import os\nos.system('x')",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.hub.load('x', 'y')",
    ],
)
def test_the_rule_catches(source: str) -> None:
    assert len(faults(source, Path("nodes/x.py"))) == 1


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch([tmp_path_factory.mktemp("allowed")])


class Unpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ()


def connects(_: Path) -> None:
    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect_ex(("127.0.0.1", 9))


def looks_up(_: Path) -> None:
    socket.getaddrinfo("localhost", 80)


def starts(_: Path) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def unpickles(_: Path) -> None:
    pickle.loads(pickle.dumps(Unpickled()))  # noqa: S301 - the very thing to catch


def evaluates(_: Path) -> None:
    eval("1")  # noqa: S307 - the same


def writes(folder: Path) -> None:
    (folder / "a").write_text("x", encoding="utf-8")


def makes_a_folder(folder: Path) -> None:
    (folder / "a").mkdir()


def links(folder: Path) -> None:
    (folder / "a").symlink_to("b")


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (connects, "socket.connect"),
        (looks_up, "socket.getaddrinfo"),
        (starts, "subprocess.Popen"),
        (unpickles, "pickle.find_class"),
        (evaluates, "exec"),
        (writes, "open"),
        (makes_a_folder, "os.mkdir"),
        (links, "os.symlink"),
    ],
)
def test_the_watch_catches(action: Callable[[Path], object], event: str, watch: Watch, tmp_path: Path) -> None:
    with watch.on() as found:
        action(tmp_path)
    assert any(each.startswith(f"{event}:") for each in found), found
    with watch.on() as found:
        (Path(watch.folders[0]) / "b").write_text("x", encoding="utf-8")
        (Path(watch.folders[0]) / "b").read_bytes()
    assert found == []


def test_every_dependency_is_documented_with_its_licence() -> None:
    rows = [line.split("|")[1].strip() for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if "|" in line]
    assert set(rows) >= {name for listed in requirements().values() for name in listed}


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages audited"),
        ({"dependencies": [{"name": "a", "skip_reason": "not found on PyPI"}]}, 0, "cannot be reached"),
        (None, 0, "cannot be reached"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]},
            1,
            "a 1: CVE-1, mended in 2",
        ),
    ],
)
def test_an_audit_fails_on_a_vulnerability_and_on_nothing_else(answer: Any, status: int, words: str) -> None:
    told = verdict(None if answer is None else json.dumps(answer))
    assert told[0] == status and words in told[1]
