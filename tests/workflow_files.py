"""The files in workflows/: what they hold, where their nodes stand, and the graph that a page would send of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_types import NOTES, NodeType, node_types

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
TITLE = 30
"""Height of the bar above a node's own place, in the page's units."""

Graph = dict[str, dict[str, Any]]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Link:
    """From an output to an input, both by node id and place."""

    id: int
    source: int
    output: int
    target: int
    input: int
    type: str


OLDER = "_older_comfyui"
"""Ends the name of a version for ComfyUI as of 0.3.64, because a core node has changed since."""


@dataclass(frozen=True)
class Workflow:
    """A saved graph, in the page's own format of version 0.4."""

    name: str
    saved: dict[str, Any]

    @property
    def is_older(self) -> bool:
        """Whether it is the version of another one for an older ComfyUI."""
        return self.name.endswith(OLDER)

    @property
    def types(self) -> dict[str, NodeType]:
        return node_types(self.is_older)

    @property
    def nodes(self) -> dict[int, dict[str, Any]]:
        return {node["id"]: node for node in self.saved["nodes"]}

    @property
    def links(self) -> dict[int, Link]:
        return {row[0]: Link(*row) for row in self.saved["links"]}

    @property
    def groups(self) -> list[tuple[str, Box]]:
        boxes = ((group["title"], group["bounding"]) for group in self.saved["groups"])
        return [(title, (x, y, x + width, y + height)) for title, (x, y, width, height) in boxes]


def workflows() -> list[Workflow]:
    """All of them, in the order of their names."""
    files = sorted(FOLDER.glob("*.json"))
    return [Workflow(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in files]


def names() -> list[str]:
    """Of all of them; a version for an older ComfyUI has that of the present one."""
    return [workflow.name for workflow in workflows() if not workflow.is_older]


def version_for(name: str, older: bool) -> Workflow:
    """The workflow of a name, in its version for an older ComfyUI where that is asked for and there is one."""
    found = {workflow.name: workflow for workflow in workflows()}
    return found.get(name + OLDER, found[name]) if older else found[name]


def box(node: dict[str, Any]) -> Box:
    """What a node covers, with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return (x, y - TITLE, x + width, y + height)


def inside(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def widget_values(node: dict[str, Any], kind: NodeType) -> dict[str, Any]:
    """{widget: value} as far as the graph gives values, without those of the second widgets."""
    given: list[Any] = node["widgets_values"]
    found: dict[str, Any] = {}
    at = 0
    for each in kind.widgets:
        if at < len(given):
            found[each.name] = given[at]
        at += 1 + each.extra
    return found


def api_graph(workflow: Workflow) -> Graph:
    """What a page sends for it when Run is pressed: {node id: class and inputs}, without notes."""
    graph: Graph = {}
    for node_id, node in workflow.nodes.items():
        if node["type"] in NOTES:
            continue
        inputs = widget_values(node, workflow.types[node["type"]])
        for row in node["inputs"]:
            if row["link"] is not None:
                link = workflow.links[row["link"]]
                inputs[row["name"]] = [str(link.source), link.output]
        graph[str(node_id)] = {"class_type": node["type"], "inputs": inputs}
    return graph
