"""Imports go one way, nodes → nodes/host → duolora_core, and the engine loads alone and without side effects."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
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


def faults(source: str, path: Path) -> list[str]:
    """What a file imports against the rules; `path` is relative to the repository. Rooms are test_rooms.py's."""
    engine, room = path.parts[0] == "duolora_core", path.parts[1].removesuffix(".py")
    found: list[str] = []
    for line, level, module in imports(source):
        top = module.partition(".")[0]
        if level == 0 and top in ("duolora_core", "nodes"):
            found.append(f"{path}:{line} imports {module} absolutely; write a relative import")
        elif level == 0 and engine and top in NOT_IN_ENGINE:
            found.append(f"{path}:{line} imports {module}, which belongs to the host or to plotting")
        elif level == 0 and engine and top == "PIL" and room != "report":
            found.append(f"{path}:{line} imports PIL; only duolora_core/report draws")
        elif level == 0 and not engine and top in HOST_MODULES and room != "host":
            found.append(f"{path}:{line} imports {module}; only nodes/host touches the host")
    return found


def test_every_file_imports_what_it_may() -> None:
    files = [path.relative_to(ROOT) for tree in ("duolora_core", "nodes") for path in (ROOT / tree).rglob("*.py")]
    assert len(files) > 100
    assert [each for path in files for each in faults((ROOT / path).read_text(encoding="utf-8"), path)] == []


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("duolora_core/gates.py", "import comfy.utils", 1),
        ("duolora_core/gates.py", "def f():\n    import folder_paths", 1),
        ("duolora_core/gates.py", "from comfy_api.latest import io", 1),
        ("duolora_core/gates.py", "from PIL import Image", 1),
        ("duolora_core/gates.py", "from duolora_core.errors import DuoLoraError", 1),
        ("duolora_core/gates.py", "import torch\nfrom .errors import DuoLoraError", 0),
        ("duolora_core/report/canvas.py", "from PIL import Image\nfrom ..errors import X", 0),
        ("nodes/merge.py", "import comfy.model_management", 1),
        ("nodes/merge.py", "from duolora_core import train", 1),
        ("nodes/merge.py", "from comfy_api.latest import io\nfrom ..duolora_core import train", 0),
        ("nodes/host/model.py", "import comfy.utils, folder_paths", 0),
    ],
)
def test_the_rules_catch_what_they_should(path: str, source: str, wrong: int) -> None:
    assert len(faults(source, Path(path))) == wrong


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
