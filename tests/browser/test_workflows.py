"""Every file of workflows/ in the page of every ComfyUI found: listed, shown without a complaint, and run."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from browser.comfy_page import ComfyPage
from host.comfy_host import ComfyServer
from host.small_world import furnish, save_what_others_reuse
from workflow_files import FOLDER, Workflow, api_graph, names, version_for, workflows
from workflow_on_small_model import on_small_model

PACK = "ComfyUI-DuoLoRA"
STEPS = 2


@pytest.fixture(scope="module")
def shared(browser: Browser, server: ComfyServer) -> Iterator[ComfyPage]:
    """One page for all workflows, as an artist opens one after the other."""
    furnish(server)
    save_what_others_reuse(server, STEPS)
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    yield ComfyPage(context.new_page(), server).open()
    context.close()


@pytest.fixture
def comfy(shared: ComfyPage) -> Iterator[ComfyPage]:
    """The page, which has to be free of errors after each of them."""
    shared.problems.forget()
    yield shared
    assert shared.problems.found == []


@pytest.fixture(params=names())
def workflow(request: pytest.FixtureRequest, server: ComfyServer) -> Workflow:
    """Each, of two versions the one that is meant for this ComfyUI."""
    trains = server.object_info("TrainLoraNode")["TrainLoraNode"]["output"]
    return version_for(request.param, older=trains[0] == "MODEL")


def read(server: ComfyServer, route: str) -> tuple[str, bytes]:
    """Content type and body."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://{server.address}{route}", timeout=30
    ) as reply:
        return reply.headers.get_content_type(), reply.read()


def width(workflow: Workflow) -> int:
    """Of its picture, by which the page's own stand-in is told from it."""
    with Image.open(FOLDER / f"{workflow.name}.jpg") as picture:
        return picture.width


def test_file_and_picture_are_served(server: ComfyServer, workflow: Workflow) -> None:
    route = f"/api/workflow_templates/{PACK}/{workflow.name}"
    kind, body = read(server, f"{route}.jpg")
    assert kind == "image/jpeg"
    with Image.open(io.BytesIO(body)) as picture:
        assert min(picture.size) >= 200
    assert read(server, f"{route}.json")[0] == "application/json"


def test_it_opens_whole_and_saves_as_it_was(comfy: ComfyPage, workflow: Workflow) -> None:
    """No unknown node; saved and opened again it asks the server for the same."""
    comfy.load(workflow.saved, workflow.name)
    assert comfy.unknown_nodes() == []
    first = comfy.prompt()
    assert first.keys() == api_graph(workflow).keys()
    comfy.load(comfy.saved(), workflow.name)
    assert comfy.prompt() == first


def test_it_runs_to_its_end_from_the_page(comfy: ComfyPage, workflow: Workflow) -> None:
    """Its own nodes and links, with the small world's words and sizes in the widgets; Run is clicked."""
    comfy.load(workflow.saved, workflow.name)
    wanted = on_small_model(comfy.prompt(), STEPS, STEPS)
    comfy.set_inputs(wanted)
    sent: dict[str, Any] = comfy.prompt()
    assert sent == wanted
    history = comfy.server.wait(comfy.run(), timeout=600)
    pictures = [picture for images in comfy.server.images(history).values() for picture in images]
    assert pictures
    assert all(picture.std() > 5 for picture in pictures)


def test_template_browser_lists_them_all(comfy: ComfyPage) -> None:
    """The artist opens it, chooses the pack, sees every title with its picture, and opens one by a click."""
    page = comfy.page
    page.get_by_role("button", name="Templates", exact=True).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK).first.click()
    shown = "([name, width]) => [...document.images].some(each => each.alt == name && each.naturalWidth == width)"
    for each in workflows():
        title = dialog.get_by_text(each.name, exact=True).first
        title.evaluate("each => each.scrollIntoView({block: 'end'})")  # its picture, above it, loads once it is seen
        page.wait_for_function(shown, arg=[each.name, width(each)])
    first = workflows()[0]
    dialog.get_by_text(first.name, exact=True).first.click()
    expect(dialog).to_be_hidden()
    page.wait_for_function("count => app.graph.nodes.length == count", arg=len(first.nodes))
    assert comfy.prompt().keys() == api_graph(first).keys()
