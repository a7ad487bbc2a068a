"""Imports go one way, nodes → nodes/host → duolora_core, and the engine loads alone and without side effects."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ENGINE = ROOT / "duolora_core"
NODES = ROOT / "nodes"
HOST_MODULES = {"comfy", "comfy_execution", "folder_paths", "latent_preview", "server"}
NOT_IN_ENGINE = {"comfy_api", "comfy_extras", "nodes", "matplotlib", *HOST_MODULES}


def imports(source: str) -> Iterator[tuple[int, int, str]]:
    """Every import in a file, nested ones too, as (line, level, module); level counts the dots of a relative one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.lineno, node.level, node.module
            else:  # from . import a, b
                yield from ((node.lineno, node.level, alias.name) for alias in node.names)


def engine_faults(source: str, path: Path) -> list[str]:
    """What an engine file imports against the rules; `path` is relative to the repository."""
    faults: list[str] = []
    depth = len(path.parts) - 1  # duolora_core/report/x.py may write "..", not "..."
    may_draw = path.parts[1] in ("report", "report.py")
    for line, level, module in imports(source):
        top = module.partition(".")[0]
        if level > depth:
            faults.append(f"{path}:{line} reaches out of duolora_core")
        elif level == 0 and top == "duolora_core":
            faults.append(f"{path}:{line} imports {module} absolutely; write a relative import")
        elif level == 0 and top in NOT_IN_ENGINE:
            faults.append(f"{path}:{line} imports {module}, which belongs to the host or to plotting")
        elif level == 0 and top == "PIL" and not may_draw:
            faults.append(f"{path}:{line} imports PIL; only duolora_core/report draws")
        elif level == depth and top == "report" and not may_draw:
            faults.append(f"{path}:{line} imports the plots; callers import duolora_core.report themselves")
    return faults


def node_faults(source: str, path: Path) -> list[str]:
    """What a nodes file imports against the rules; `path` is relative to the repository."""
    faults: list[str] = []
    in_host = path.parts[1] in ("host", "host.py")
    for line, level, module in imports(source):
        top = module.partition(".")[0]
        if level == 0 and top in HOST_MODULES and not in_host:
            faults.append(f"{path}:{line} imports {module}; only nodes/host touches the host")
        elif level == 0 and top in ("duolora_core", "nodes"):
            faults.append(f"{path}:{line} imports {module} absolutely; write a relative import")
    return faults


def python_files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in folder.rglob("*.py"))


@pytest.mark.parametrize("path", python_files(ENGINE), ids=str)
def test_engine_file_imports_only_the_engine(path: Path) -> None:
    assert engine_faults((ROOT / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize("path", python_files(NODES), ids=str)
def test_node_file_touches_the_host_only_in_nodes_host(path: Path) -> None:
    assert node_faults((ROOT / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("duolora_core/gates.py", "import comfy.utils"),
        ("duolora_core/gates.py", "def f():\n    import folder_paths"),
        ("duolora_core/gates.py", "from comfy_api.latest import io"),
        ("duolora_core/gates.py", "from PIL import Image"),
        ("duolora_core/gates.py", "import matplotlib.pyplot as plt"),
        ("duolora_core/gates.py", "from duolora_core.errors import DuoLoraError"),
        ("duolora_core/gates.py", "from ..nodes import host"),
        ("duolora_core/__init__.py", "from .report import merge_report"),
        ("duolora_core/report/charts.py", "from ...nodes import host"),
    ],
)
def test_engine_rule_catches(path: str, source: str) -> None:
    assert len(engine_faults(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/merge.py", "import comfy.model_management"),
        ("nodes/merge.py", "def f():\n    import folder_paths"),
        ("nodes/merge.py", "from duolora_core import train"),
    ],
)
def test_node_rule_catches(path: str, source: str) -> None:
    assert len(node_faults(source, Path(path))) == 1


def test_rules_allow_what_they_should() -> None:
    assert engine_faults("import torch\nfrom .errors import DuoLoraError", Path("duolora_core/gates.py")) == []
    assert engine_faults("from PIL import Image\nfrom ..errors import X", Path("duolora_core/report/canvas.py")) == []
    assert (
        node_faults("from comfy_api.latest import io\nfrom ..duolora_core import train", Path("nodes/merge.py")) == []
    )
    assert node_faults("import comfy.utils, folder_paths", Path("nodes/host/model.py")) == []


PROBE = """
import json, logging, sys
root = logging.getLogger()
before = list(root.handlers), root.level
import duolora_core
print("\\n" + json.dumps({
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "logger_untouched": (list(root.handlers), root.level) == before,
}))
"""


def test_importing_the_engine_has_no_side_effects() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    said, _, report = result.stdout.rstrip("\n").rpartition("\n")
    found = json.loads(report)
    assert said.strip() == "" and result.stderr == ""
    assert found["logger_untouched"]
    assert not {"PIL", *NOT_IN_ENGINE} & set(found["loaded"])
