"""The rooms of the house: which there are, that each imports only from those below it, and that nothing goes round."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ENGINE = ("errors", "files", "checkpoint", "model", "lora", "merge", "train_lora", "baselines", "report")
NODES = ("host", "run", "ui")
"""From the ground up. What stands beside the rooms is above them all: the engine's offer, and the node classes."""

Imports = Mapping[str, frozenset[str]]
"""{module: the modules of ours that it imports}, by their dotted names from the root of the pack."""


def modules() -> dict[str, Path]:
    paths = sorted(path for tree in ("duolora_core", "nodes") for path in (ROOT / tree).rglob("*.py"))
    return {_name(path.relative_to(ROOT)): path for path in paths}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it the import stands; a package counts as its `__init__`."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = package[: len(package) - node.level + 1]
            module = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield submodule if submodule in known else module


@pytest.fixture(scope="module")
def graph() -> Imports:
    known = modules()
    return {name: frozenset(imported(name, path, known)) for name, path in known.items()}


def floor(module: str) -> int:
    """How high a module stands: the engine's rooms, the engine's offer, the nodes' rooms, the node classes."""
    tree, _, inner = module.partition(".")
    rooms = ENGINE if tree == "duolora_core" else NODES
    room = inner.partition(".")[0]
    own = rooms.index(room) if room in rooms else len(rooms)
    return own if tree == "duolora_core" else len(ENGINE) + 1 + own


def upward(graph: Imports) -> list[str]:
    return [f"{a} imports {b}" for a, others in graph.items() for b in sorted(others) if floor(b) > floor(a)]


def circle(graph: Imports) -> list[str]:
    """A round of imports, or nothing. A package's `__init__` is run before its modules, which may not need it."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        found = next((c for other in sorted(graph.get(module, ())) if (c := visit(other, [*way, module]))), [])
        done.add(module)
        return found

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def test_no_import_runs_up_again(graph: Imports) -> None:
    for rooms, tree in ((ENGINE, "duolora_core"), (NODES, "nodes")):
        for room in rooms:
            count = sum(floor(module) == floor(f"{tree}.{room}") for module in graph)
            print(f"{tree}/{room}: {count} files")  # noqa: T201  # shown with -s: the house at a glance
    assert upward(graph) == []


def test_no_import_goes_round(graph: Imports) -> None:
    assert circle(graph) == []


def test_nodes_do_not_import_nodes(graph: Imports) -> None:
    classes = {m for m in graph if m.startswith("nodes.") and m.split(".")[1] not in NODES}
    assert [f"{a} imports {b}" for a in sorted(classes) for b in sorted(graph[a] & classes)] == []


def test_every_module_has_a_room_and_every_room_says_what_it_is(graph: Imports) -> None:
    assert {m for m in graph if m.startswith("duolora_core.") and m.split(".")[1] not in ENGINE} == set()
    for tree, rooms in (("duolora_core", ENGINE[1:]), ("nodes", NODES)):
        for room in rooms:
            folder = ROOT / tree / room
            said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
            missing = [path.stem for path in sorted(folder.glob("[!_]*.py")) if f"`{path.stem}`" not in said]
            assert missing == [], f"{tree}/{room}/__init__.py does not name {missing}"


@pytest.mark.parametrize(
    ("edges", "up", "round_"),
    [
        ({"duolora_core.lora.read": {"duolora_core.merge.gates"}}, 1, 0),
        ({"duolora_core.report.merge_sheet": {"duolora_core.merge.gates"}}, 0, 0),
        ({"duolora_core.merge.gates": {"nodes.merge"}}, 1, 0),
        ({"nodes.host.models": {"nodes.run.merge"}}, 1, 0),
        ({"nodes.run.merge": {"nodes.ui.sockets"}}, 1, 0),
        ({"duolora_core.merge.a": {"duolora_core.merge.b"}, "duolora_core.merge.b": {"duolora_core.merge.a"}}, 0, 3),
        ({"nodes.merge": {"nodes.ui.sockets", "duolora_core.merge.gates", "duolora_core"}}, 0, 0),
    ],
)
def test_the_rules_catch_what_they_should(edges: dict[str, set[str]], up: int, round_: int) -> None:
    graph = {module: frozenset(others) for module, others in edges.items()}
    assert (len(upward(graph)), len(circle(graph))) == (up, round_)
