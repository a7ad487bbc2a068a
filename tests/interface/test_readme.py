"""What the README promises is there: its pictures, every node, every workflow, and the messages that it explains."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from host.node_schema import read_schema
from interface.test_words import FIRST_CELL, QUOTED, ROOT, locale, messages, section

README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"\(((?:docs|workflows)/[^)]+\.(?:png|jpg))\)|src=\"([^\"]+)\"", README)
SHOWN = [markdown or html for markdown, html in PICTURES]


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_are_there_and_small(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_size < 500_000
    with Image.open(path) as picture:
        assert min(picture.size) > 100


def test_every_picture_in_its_folder_is_used_or_of_a_node() -> None:
    """Those of the nodes lie there for all; what nobody shows would only grow old."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "pictures").rglob("*.png")}
    nodes = {f"docs/pictures/nodes/{node_id}.png" for node_id in read_schema()}
    assert found == nodes | {name for name in SHOWN if name.startswith("docs/pictures/")}


def test_every_node_is_in_the_table() -> None:
    table = section(README, "## The nodes")
    assert [node for node in locale("en", "nodeDefs.json").values() if node["display_name"] not in table] == []


def test_every_workflow_is_in_the_table() -> None:
    listed = FIRST_CELL.findall(section(README, "## The workflows"))
    saved = {path.stem.removesuffix("_older_comfyui") for path in (ROOT / "workflows").glob("*.json")}
    assert set(listed) - {"workflow"} == saved


def test_messages_are_quoted_as_they_are() -> None:
    """What stands in italics at the left is what the artist really reads."""
    said = messages()
    quotes = [
        quote
        for cell in FIRST_CELL.findall(section(README, "## When something goes wrong"))
        for quote in QUOTED.findall(cell)
    ]
    assert len(quotes) > 8
    assert [quote for quote in quotes if quote not in said] == []
