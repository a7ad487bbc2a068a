"""Fixtures for tests in ComfyUI's own page: one server per host and one browser, a new page for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser.chromium import ARGUMENTS, HOW_TO_ENABLE, find_chromium
from browser.comfy_page import ComfyPage
from browser.world_server import world_server
from host.comfy_host import ComfyServer
from host.hosts import HOW_TO_ENABLE as HOW_TO_GET_A_HOST
from host.hosts import Host, find_hosts
from host.processes import share_out

HERE = Path(__file__).resolve().parent
HOSTS = find_hosts()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder carries the marker `browser`."""
    inside = [item for item in items if item.path.is_relative_to(HERE)]
    for item in inside:
        item.add_marker(pytest.mark.browser)
    share_out(inside)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(HOW_TO_ENABLE)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)


@pytest.fixture(scope="session", params=HOSTS or [None], ids=[host.version for host in HOSTS] or ["no-host"])
def server(request: pytest.FixtureRequest, browser: Browser) -> Iterator[ComfyServer]:
    """Each ComfyUI on this machine in turn, with its own page, our pack and the shapes world."""
    host: Host | None = request.param
    if host is None:
        pytest.skip(HOW_TO_GET_A_HOST)
    with world_server(host) as running:
        yield running


@pytest.fixture
def comfy(browser: Browser, server: ComfyServer) -> Iterator[ComfyPage]:
    """A fresh page, which has to be free of errors after the test as well."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    comfy = ComfyPage(context.new_page(), server).open()
    yield comfy
    problems = comfy.problems.found
    context.close()
    assert problems == []
