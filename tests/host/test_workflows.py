"""The files in workflows/ in real ComfyUI: core's nodes are as listed, and every graph runs to its end.

On the shapes world, and as a page would send it; tests/browser does the same through the page itself.
"""

from __future__ import annotations

from typing import Any

import pytest

from host.comfy_host import ComfyServer
from host.small_world import furnish, run_small, save_what_others_reuse
from node_types import CORE, OUTPUT_NODES, PREFIX, NodeType, node_types
from workflow_files import names, version_for

STEPS, TRAINING_STEPS = 2, 2
SHOWING = {"DuoLoRACompareGrid", "DuoLoRAMergeReport", "SaveImage"}


@pytest.fixture(scope="module")
def artist(server: ComfyServer) -> ComfyServer:
    """A server with all files that the workflows name."""
    furnish(server)
    save_what_others_reuse(server, STEPS)
    return server


@pytest.fixture(scope="module")
def info(server: ComfyServer) -> dict[str, Any]:
    return server.object_info()


def is_older(info: dict[str, Any]) -> bool:
    """Whether core's Train LoRA still hands out the model."""
    return info["TrainLoraNode"]["output"][0] == "MODEL"


def rows(kind: NodeType) -> list[tuple[str, str]]:
    return [(each.name, each.type) for each in kind.inputs]


def test_cores_nodes_are_as_listed(info: dict[str, Any]) -> None:
    """The list begins with all inputs that a workflow gives, in the host's order; outputs are complete."""
    types = node_types(is_older(info))
    for name in CORE:
        given = info[name]["input"]["required"]
        found = [(key, "COMBO" if isinstance(spec[0], list) else spec[0]) for key, spec in given.items()]
        assert found[: len(types[name].inputs)] == rows(types[name]), name
        assert tuple(info[name]["output"]) == types[name].outputs or types[name].is_output, name
        assert info[name]["output_node"] == types[name].is_output, name


def test_outputs_that_show_something_are_as_listed(info: dict[str, Any]) -> None:
    ours = {name for name in info if name.startswith(PREFIX) and "Test" not in name}
    assert {name for name in ours if info[name]["output_node"]} == OUTPUT_NODES


@pytest.mark.parametrize("name", names())
def test_it_runs_to_its_end(artist: ComfyServer, info: dict[str, Any], name: str) -> None:
    """Every picture that it promises is there, and not of one colour."""
    workflow = version_for(name, is_older(info))
    history = run_small(artist, workflow, STEPS, TRAINING_STEPS)
    images = artist.images(history)
    shows = {str(key) for key, node in workflow.nodes.items() if node["type"] in SHOWING}
    assert images.keys() == shows
    assert all(picture.std() > 1 for pictures in images.values() for picture in pictures)
