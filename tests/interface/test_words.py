"""Words for artists: every node has a help page, and every label and tooltip stands in every language.

tests/host/schema.json is the list of what there is to explain; tests/host/test_schema.py holds it to the real nodes. A
new node needs, and these tests name what is missing:

1. `PYTHONPATH=tests .venv/bin/python -m host.renew_schema`: writes schema.json, and an entry into English,
   locales/en/nodeDefs.json.
2. Its words in English, which the schema itself takes from there, and translated in locales/zh/nodeDefs.json and
   locales/ja/nodeDefs.json.
3. A help page, web/docs/<node id>.md.

How ComfyUI's page finds them: nodeDefs.<node id>.inputs.<input>.name and .tooltip, outputs by their number, and
nodeCategories.<part of the category>; a help page under /extensions/<folder of the pack>/docs/<node id>.md.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.node_schema import read_schema

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "web" / "docs"
LANGUAGES = ("en", "zh", "ja")
NODES = read_schema()
SECTIONS = ("## Inputs", "## Outputs", "## When something goes wrong")
CELL = r" [^\s|][^|\n]* \|"
INPUT_ROW = re.compile(rf"^\| `([^`]+)` \|{CELL}{CELL}$", re.MULTILINE)  # name, sensible range, what it does
OUTPUT_ROW = re.compile(rf"^\| `([^`]+)` \|{CELL}$", re.MULTILINE)  # name, what it is
FIRST_CELL = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)
QUOTED = re.compile(r"\*([^*]+)\*")
CHINESE_OR_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def locale(language: str, name: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


def section(page: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return page.partition(f"{heading}\n")[2].partition("\n## ")[0]


def names(node_id: str, side: str) -> list[str]:
    return [row["name"] for row in NODES[node_id][side]]


def texts(words: dict[str, Any]) -> Iterator[str]:
    """Every text of a nodeDefs.json."""
    for value in words.values():
        if isinstance(value, dict):
            yield from texts(value)
        else:
            yield value


def test_every_node_has_a_help_page_and_every_page_a_node() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(NODES)


@pytest.mark.parametrize("node_id", NODES)
def test_help_page_explains_every_input_and_output(node_id: str) -> None:
    """In the order of the node, under the headings that all pages have, and nothing that the node does not have."""
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {locale('en', 'nodeDefs.json')[node_id]['display_name']}\n")
    assert [page.count(f"\n{heading}\n") for heading in SECTIONS] == [1, 1, 1]
    assert INPUT_ROW.findall(section(page, "## Inputs")) == names(node_id, "inputs")
    assert OUTPUT_ROW.findall(section(page, "## Outputs")) == names(node_id, "outputs")
    assert section(page, "## When something goes wrong").strip()


def messages() -> str:
    """Every text in the code of the pack, with … where a value is filled in."""
    found: list[str] = []
    for path in sorted([*(ROOT / "nodes").rglob("*.py"), *(ROOT / "duolora_core").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_help_pages_quote_messages_that_exist() -> None:
    """What stands in italics at the left of the last table is what the artist really reads."""
    said = messages()
    for path in sorted(PAGES.glob("*.md")):
        troubles = section(path.read_text(encoding="utf-8"), "## When something goes wrong")
        quotes = [quote for cell in FIRST_CELL.findall(troubles) for quote in QUOTED.findall(cell)]
        assert quotes and [quote for quote in quotes if quote not in said] == [], path.name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_names_every_node_input_and_output(language: str) -> None:
    """None is missing, and none names what does not exist."""
    words = locale(language, "nodeDefs.json")
    assert words.keys() == NODES.keys()
    for node_id, entry in words.items():
        outputs = {str(number) for number in range(len(NODES[node_id]["outputs"]))}
        assert entry.keys() == {"display_name", "description", "inputs", "outputs"}, node_id
        assert entry["inputs"].keys() == set(names(node_id, "inputs")), node_id
        assert entry["outputs"].keys() == outputs, node_id
        for item in (*entry["inputs"].values(), *entry["outputs"].values()):
            assert item.keys() == {"name", "tooltip"}, (node_id, item)
    assert all(text and text.strip() for text in texts(words)), "null: to be written"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_takes_for_syntax(language: str) -> None:
    """ComfyUI's page reads texts as vue-i18n messages: braces, @ and | are placeholders, links and plurals there."""
    bad = [text for text in texts(locale(language, "nodeDefs.json")) if re.search(r"[{}@|]", text)]
    assert bad == []


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_translations_are_translated(language: str) -> None:
    for node_id, entry in locale(language, "nodeDefs.json").items():
        described = [entry["display_name"], entry["description"]]
        described += [item["tooltip"] for side in ("inputs", "outputs") for item in entry[side].values()]
        assert [text for text in described if not CHINESE_OR_JAPANESE.search(text)] == [], node_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_category_is_named(language: str) -> None:
    parts = {part for node in NODES.values() for part in node["category"].split("/")}
    assert locale(language, "main.json")["nodeCategories"].keys() == parts


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_one_label_has_one_translation(language: str) -> None:
    """The same input of several nodes is called the same, so that a graph reads as one."""
    found: dict[str, set[str]] = {}
    for node_id, entry in locale(language, "nodeDefs.json").items():
        for name, item in entry["inputs"].items():
            found.setdefault(name, set()).add(item["name"])
        for number, name in enumerate(names(node_id, "outputs")):
            found.setdefault(name, set()).add(entry["outputs"][str(number)]["name"])
    assert {name: called for name, called in found.items() if len(called) > 1} == {}
