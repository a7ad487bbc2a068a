"""What saved graphs rely on, in schema.json beside this file: ids, inputs, outputs; and how two versions differ.

A graph saved in the page holds widget values by position and links by slot; one saved for the API holds input names.
Both hold the choice made in a combo. So only this leaves them whole: new nodes, optional inputs and outputs appended at
the end, new options in a combo.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAVED = Path(__file__).resolve().parent / "schema.json"
RENEW = "PYTHONPATH=tests .venv/bin/python -m host.renew_schema"

Node = Mapping[str, Any]
Schema = Mapping[str, Node]


@dataclass
class Changes:
    """Both in words, each naming its node."""

    breaking: list[str] = field(default_factory=list)
    harmless: list[str] = field(default_factory=list)


def read_schema() -> dict[str, Any]:
    """{node id: {"category", "inputs": rows, "outputs": rows}} as they were when last meant to change."""
    return json.loads(SAVED.read_text(encoding="utf-8"))


def written(schema: Schema) -> str:
    """The text of schema.json: a line for each input and output, so that a change of it reads as one line."""
    nodes: list[str] = []
    for node_id, node in schema.items():
        lines = [f'    "category": {json.dumps(node["category"])}']
        for side in ("inputs", "outputs"):
            rows = [f"      {json.dumps(row, ensure_ascii=False)}" for row in node[side]]
            lines.append(f'    "{side}": [\n' + ",\n".join(rows) + "\n    ]" if rows else f'    "{side}": []')
        nodes.append(f'  "{node_id}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def changes(saved: Schema, found: Schema) -> Changes:
    """What saved graphs would notice of the step from one schema to the other."""
    result = Changes()
    for node_id, before in saved.items():
        if node_id not in found:
            result.breaking.append(f"{node_id} is gone, or has another id")
            continue
        _compare_inputs(node_id, before, found[node_id], result)
        _compare_outputs(node_id, before, found[node_id], result)
        if before["category"] != found[node_id]["category"]:
            result.harmless.append(f"{node_id} is in the category {found[node_id]['category']}")
    result.harmless += [f"{node_id} is new" for node_id in found if node_id not in saved]
    return result


def _compare_inputs(node_id: str, before: Node, after: Node, result: Changes) -> None:
    old, new = ({row["name"]: row for row in node["inputs"]} for node in (before, after))
    gone = [name for name in old if name not in new]
    result.breaking += [f"{node_id}: input {name} is gone, or has another name" for name in gone]
    if not gone and list(new)[: len(old)] != list(old):
        result.breaking.append(f"{node_id}: the order of the inputs is {', '.join(new)}; new ones belong at the end")
    for name, row in new.items():
        if name in old:
            _compare_input(f"{node_id}: input {name}", old[name], row, result)
        elif row.get("optional"):
            result.harmless.append(f"{node_id}: input {name} is new")
        else:
            result.breaking.append(f"{node_id}: input {name} is new and not optional, so saved graphs lack it")


def _compare_input(name: str, old: Node, new: Node, result: Changes) -> None:
    if old["type"] != new["type"]:
        result.breaking.append(f"{name} was {old['type']} and is {new['type']}")
    if old.get("control_after_generate") != new.get("control_after_generate"):
        result.breaking.append(f"{name} has gained or lost its second widget, which moves all values after it")
    if old.get("optional") and not new.get("optional"):
        result.breaking.append(f"{name} is not optional any more")
    elif new.get("optional") and not old.get("optional"):
        result.harmless.append(f"{name} is optional now")
    if old.get("default") != new.get("default"):
        said = f"{name} has the default {new.get('default')!r} instead of {old.get('default')!r}"
        # A graph that does not hold the input at all runs with the default.
        (result.breaking if old.get("optional") else result.harmless).append(said)
    old_options, new_options = old.get("options", []), new.get("options", [])
    lost = [option for option in old_options if option not in new_options]
    result.breaking += [f"{name} no longer offers {option!r}" for option in lost]
    if not lost and old_options != new_options:
        result.harmless.append(f"{name} offers {new_options}")


def _compare_outputs(node_id: str, before: Node, after: Node, result: Changes) -> None:
    old, new = before["outputs"], after["outputs"]
    if [row["type"] for row in new][: len(old)] != [row["type"] for row in old]:
        result.breaking.append(f"{node_id}: outputs are {new}; links know them by their place, new ones go to the end")
    elif old != new:
        result.harmless.append(f"{node_id}: outputs are {new}")


def advice(saved: Schema, found: Schema) -> str:
    """What the author of a change is told about it; empty where there is none."""
    if saved == found:
        return ""
    seen = changes(saved, found)
    return "\n  ".join(
        [
            "The nodes differ from tests/host/schema.json, which saved graphs refer to.",
            *[f"BREAKS saved graphs: {each}." for each in seen.breaking],
            *[f"harmless: {each}." for each in seen.harmless],
            "To add an input, append it at the end and make it optional, with the default that does what was done "
            "before. To add a node, an output or an option, append it too. Instead of renaming, add a new one.",
            f"If the change is meant, a breaking one with a line in CHANGELOG.md, renew the file: {RENEW}",
        ]
    )
