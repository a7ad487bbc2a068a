"""Node schemas in real ComfyUI: what saved graphs refer to stays, and words and help pages reach the page."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from host.comfy_host import ComfyServer
from host.hosts import Host
from host.node_schema import RENEW, advice, read_schema
from host.renew_schema import ENGLISH, catalogue
from install import ROOT, installed_files


@pytest.fixture(scope="module")
def found(host: Host) -> dict[str, Any]:
    return catalogue(host)


def test_saved_graphs_keep_loading(found: dict[str, Any]) -> None:
    """Ids, names, types, order, defaults and options are those of schema.json."""
    said = advice(read_schema(), found["schema"])
    assert not said, said


def test_english_is_the_words_of_the_nodes(found: dict[str, Any]) -> None:
    """Each has an entry there, and no other words than these."""
    assert json.loads(ENGLISH.read_text(encoding="utf-8")) == found["words"], f"renew the file: {RENEW}"


def test_an_install_without_the_workshop_has_the_same_nodes(host: Host, tmp_path: Path) -> None:
    """The files that the registry ships are all that the pack needs to load."""
    for path in installed_files():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    assert catalogue(host, tmp_path)["schema"].keys() == read_schema().keys()


def get(server: ComfyServer, path: str) -> str:
    with urllib.request.urlopen(f"http://{server.address}{path}", timeout=60) as reply:
        return reply.read().decode()


def test_host_serves_every_help_page(server: ComfyServer) -> None:
    """Under the address that the page asks for: the folder in which the host found the node, then docs."""
    nodes = json.loads(get(server, "/object_info"))
    for node_id in read_schema():
        folder = nodes[node_id]["python_module"].split(".")[1]
        page = get(server, f"/extensions/{folder}/docs/{node_id}.md")
        assert page == (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
def test_host_serves_every_translation(server: ComfyServer, language: str) -> None:
    served = json.loads(get(server, "/i18n"))[language]
    folder = ROOT / "locales" / language
    ours = json.loads((folder / "nodeDefs.json").read_text(encoding="utf-8"))
    assert {node_id: served["nodeDefs"][node_id] for node_id in ours} == ours
    categories = json.loads((folder / "main.json").read_text(encoding="utf-8"))["nodeCategories"]
    assert served["nodeCategories"].items() >= categories.items()
