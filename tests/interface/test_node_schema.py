"""What the snapshot of the node schemas calls a break: everything that a saved graph would notice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from host.node_schema import RENEW, SAVED, advice, changes, read_schema, written

Edit = Callable[[dict[str, Any]], object]


def small() -> dict[str, Any]:
    """One node with a combo, a seed with its second widget, and an optional input."""
    return {
        "DuoLoRANode": {
            "category": "DuoLoRA",
            "inputs": [
                {"name": "method", "type": "COMBO", "default": "a", "options": ["a", "b"]},
                {"name": "seed", "type": "INT", "default": 0, "control_after_generate": True},
                {"name": "pool", "type": "INT", "optional": True, "default": 0},
            ],
            "outputs": [{"name": "model", "type": "MODEL"}, {"name": "info", "type": "STRING"}],
        }
    }


def edited(edit: Edit) -> dict[str, Any]:
    schema = small()
    edit(schema["DuoLoRANode"])
    return schema


BREAKING: dict[str, Edit] = {
    "input renamed": lambda node: node["inputs"][0].update(name="way"),
    "input removed": lambda node: node["inputs"].pop(),
    "inputs in another order": lambda node: node["inputs"].reverse(),
    "input in the middle": lambda node: node["inputs"].insert(1, {"name": "x", "type": "INT", "optional": True}),
    "new input not optional": lambda node: node["inputs"].append({"name": "x", "type": "INT", "default": 0}),
    "another type": lambda node: node["inputs"][1].update(type="FLOAT"),
    "no longer optional": lambda node: node["inputs"][2].pop("optional"),
    "another default of what graphs may lack": lambda node: node["inputs"][2].update(default=16),
    "option removed": lambda node: node["inputs"][0].update(options=["b"]),
    "second widget gone": lambda node: node["inputs"][1].pop("control_after_generate"),
    "outputs in another order": lambda node: node["outputs"].reverse(),
    "output removed": lambda node: node["outputs"].pop(),
}
HARMLESS: dict[str, Edit] = {
    "optional input appended": lambda node: node["inputs"].append({"name": "x", "type": "INT", "optional": True}),
    "optional now": lambda node: node["inputs"][1].update(optional=True),
    "another default of what graphs hold": lambda node: node["inputs"][1].update(default=1),
    "option added": lambda node: node["inputs"][0].update(options=["a", "c", "b"]),
    "output appended": lambda node: node["outputs"].append({"name": "loss", "type": "LOSS_MAP"}),
    "another category": lambda node: node.update(category="DuoLoRA/compare"),
}


@pytest.mark.parametrize("edit", BREAKING.values(), ids=BREAKING.keys())
def test_breaking(edit: Edit) -> None:
    assert changes(small(), edited(edit)).breaking


@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS.keys())
def test_harmless(edit: Edit) -> None:
    seen = changes(small(), edited(edit))
    assert (len(seen.breaking), len(seen.harmless)) == (0, 1)


def test_nodes_come_but_do_not_go() -> None:
    more = small() | {"DuoLoRAOther": copy.deepcopy(small()["DuoLoRANode"])}
    assert changes(small(), more).harmless == ["DuoLoRAOther is new"]
    assert len(changes(more, small()).breaking) == 1


def test_advice_is_empty_only_without_a_difference() -> None:
    assert advice(small(), small()) == ""
    for edit in (*BREAKING.values(), *HARMLESS.values()):
        told = advice(small(), edited(edit))
        assert RENEW in told and "DuoLoRANode" in told


def test_the_file_is_as_it_would_be_written() -> None:
    """Nobody edits it by hand, so a renewed one shows nothing but the change."""
    assert SAVED.read_text(encoding="utf-8") == written(read_schema())
