"""The files in workflows/ as an artist opens them: whole, in order, and readable from left to right."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from PIL import Image

from node_types import FILE_COMBOS, NOTES
from workflow_files import FOLDER, Workflow, api_graph, box, inside, overlap, widget_values, workflows
from workflow_on_small_model import CONCEPTS, on_small_model

WORKFLOWS = workflows()
PYTHON: dict[str, type | tuple[type, ...]] = {
    "INT": int,
    "FLOAT": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "COMBO": str,
}
GROUP_LETTER = 12
"""Width of a letter of a group's title, in the page's units, with some to spare."""
BARS = (80, 100)
"""What a page's own bars cover at the left and at the top, in pixels."""
MOST_WIDE = 640
"""Of a picture in the template browser, in pixels."""

pytestmark = pytest.mark.parametrize("workflow", WORKFLOWS, ids=[each.name for each in WORKFLOWS])


def real(workflow: Workflow) -> dict[int, dict[str, Any]]:
    """All nodes but the notes."""
    return {node_id: node for node_id, node in workflow.nodes.items() if node["type"] not in NOTES}


def test_only_nodes_that_everybody_has(workflow: Workflow) -> None:
    """Core's and ours, by ids that no other node of the graph has."""
    assert workflow.saved["version"] == 0.4
    assert len(workflow.nodes) == len(workflow.saved["nodes"])
    assert {node["type"] for node in real(workflow).values()} <= workflow.types.keys()


def test_inputs_and_outputs_are_those_of_the_nodes(workflow: Workflow) -> None:
    """In the order in which a page shows them, because links count places."""
    for node in real(workflow).values():
        kind = workflow.types[node["type"]]
        rows = [(row["name"], row["type"], "widget" in row) for row in node["inputs"]]
        assert rows == [(each.name, each.type, each.is_widget) for each in kind.shown], node["type"]
        assert tuple(row["type"] for row in node["outputs"]) == kind.outputs, node["type"]


def test_every_widget_has_a_value_that_it_takes(workflow: Workflow) -> None:
    for node in real(workflow).values():
        kind = workflow.types[node["type"]]
        values = widget_values(node, kind)
        assert len(node["widgets_values"]) == sum(1 + each.extra for each in kind.widgets), node["type"]
        for each in kind.widgets:
            assert isinstance(values[each.name], PYTHON[each.type]), (node["type"], each.name)
            if each.options and each.name not in FILE_COMBOS:
                assert values[each.name] in each.options, (node["type"], each.name)


def test_links_agree_at_both_ends(workflow: Workflow) -> None:
    """The table of links, the inputs and the outputs say the same, and types fit."""
    nodes, links = workflow.nodes, workflow.links
    ends = {(row["link"], node_id, i) for node_id, node in nodes.items() for i, row in enumerate(node["inputs"])}
    assert {(link.id, link.target, link.input) for link in links.values()} == {each for each in ends if each[0]}
    starts = {
        (link_id, node_id, i)
        for node_id, node in nodes.items()
        for i, row in enumerate(node["outputs"])
        for link_id in row["links"] or ()
    }
    assert {(link.id, link.source, link.output) for link in links.values()} == starts
    for link in links.values():
        assert link.type == nodes[link.source]["outputs"][link.output]["type"]
        assert link.type == nodes[link.target]["inputs"][link.input]["type"]


def test_nothing_required_is_missing(workflow: Workflow) -> None:
    graph = api_graph(workflow)
    for node in graph.values():
        required = {each.name for each in workflow.types[node["class_type"]].inputs if not each.optional}
        assert required <= node["inputs"].keys(), node["class_type"]


def test_every_node_leads_to_something_to_see_or_keep(workflow: Workflow) -> None:
    types, graph = workflow.types, api_graph(workflow)
    reached = {key for key, node in graph.items() if types[node["class_type"]].is_output}
    waiting = list(reached)
    while waiting:
        inputs = graph[waiting.pop()]["inputs"].values()
        behind = {value[0] for value in inputs if isinstance(value, list)} - reached
        reached |= behind
        waiting += behind
    assert reached == graph.keys()


def test_it_reads_from_left_to_right(workflow: Workflow) -> None:
    """A link ends right of the node where it begins; nothing lies on anything else; every node is in a group."""
    boxes = {node_id: box(node) for node_id, node in workflow.nodes.items()}
    for link in workflow.links.values():
        assert boxes[link.source][2] < boxes[link.target][0], (
            workflow.nodes[link.source]["type"],
            workflow.nodes[link.target]["type"],
        )
    for one, other in combinations(boxes, 2):
        assert not overlap(boxes[one], boxes[other]), (workflow.nodes[one]["type"], workflow.nodes[other]["type"])
    for (title, one_group), (name, other_group) in combinations(workflow.groups, 2):
        assert not overlap(one_group, other_group), (title, name)
    for node_id, covered in boxes.items():
        assert sum(inside(covered, group) for _, group in workflow.groups) == 1, workflow.nodes[node_id]["type"]


def test_titles_of_groups_fit(workflow: Workflow) -> None:
    for title, (left, _, right, _) in workflow.groups:
        assert len(title) * GROUP_LETTER <= right - left, title


def test_it_is_seen_from_its_beginning(workflow: Workflow) -> None:
    """The note that says what to do is the first thing on the screen."""
    view = workflow.saved["extra"]["ds"]
    first = min(workflow.nodes.values(), key=lambda node: (node["pos"][0], node["pos"][1]))
    assert first["type"] in NOTES
    x, y = ((place + offset) * view["scale"] for place, offset in zip(first["pos"], view["offset"], strict=True))
    assert BARS[0] < x < 2 * BARS[0] and BARS[1] < y < 2 * BARS[1]
    assert 0.7 <= view["scale"] <= 1, "too small to read"


def test_nothing_changes_by_itself(workflow: Workflow) -> None:
    """A seed that moved after each run would train the merge anew."""
    for node in real(workflow).values():
        assert "randomize" not in node["widgets_values"]


def test_its_names_and_prompts_have_a_meaning_on_the_small_model(workflow: Workflow) -> None:
    """Or a new workflow would run with words that the small model reads as others."""
    graph = api_graph(workflow)
    loaded = {node["inputs"]["lora_name"] for node in graph.values() if node["class_type"].startswith("DuoLoRALoadC")}
    assert loaded <= {each.file for each in CONCEPTS} | {"(connected LORA_MODEL)"}
    known = {word for each in CONCEPTS for word in each.alone.split()}
    for node in on_small_model(graph).values():
        for name in ("text", "prompt", "combined_prompt", "value"):
            text = node["inputs"].get(name, "")
            assert not isinstance(text, str) or set(text.split()) <= known


def test_a_picture_stands_beside_it(workflow: Workflow) -> None:
    """What the template browser shows: the workflow's own result, small."""
    path = FOLDER / f"{workflow.name}.jpg"
    assert path.stat().st_size < 100_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert 400 <= picture.width <= MOST_WIDE
