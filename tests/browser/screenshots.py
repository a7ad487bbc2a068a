"""Makes every picture of the README and of workflows/ again, in the newest ComfyUI found.

PYTHONPATH=tests:. .venv/bin/python -m browser.screenshots --only nodes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.shapes_world import before_after
from browser.chromium import ARGUMENTS, HOW_TO_ENABLE, find_chromium
from browser.comfy_page import ComfyPage
from browser.first_merge import take_first_merge
from browser.node_pictures import add_files, take_node_pictures
from browser.result_pictures import make_result_pictures
from browser.world_server import world_server
from host.comfy_host import ComfyServer
from host.hosts import HOW_TO_ENABLE as HOW_TO_GET_A_HOST
from host.hosts import Host, find_hosts

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"


def newest(hosts: list[Host]) -> Host:
    return max(hosts, key=lambda host: [int(part) for part in host.version.split(".")])


def page_of(browser: Browser, server: ComfyServer, width: int, height: int) -> ComfyPage:
    """A new page with two pixels of the picture for each of the page's."""
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=2)
    return ComfyPage(context.new_page(), server).open()


def nodes(browser: Browser, server: ComfyServer) -> None:
    add_files(server.loras)
    take_node_pictures(page_of(browser, server, 1600, 1600), PICTURES / "nodes")


def first_merge(browser: Browser, server: ComfyServer) -> None:
    take_first_merge(page_of(browser, server, 1900, 1400), PICTURES / "first_merge.png")


def results(browser: Browser, server: ComfyServer) -> None:
    make_result_pictures(server)


PARTS: dict[str, Callable[[Browser, ComfyServer], None]] = {
    "nodes": nodes,
    "first_merge": first_merge,
    "results": results,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("before_after", *PARTS), help="a part of them")
    only: str | None = parser.parse_args().only
    chromium, hosts = find_chromium(), find_hosts()
    if chromium is None or not hosts:
        sys.exit(HOW_TO_GET_A_HOST if chromium else HOW_TO_ENABLE)
    if only in (None, "before_after"):
        before_after.make_picture(PICTURES / "before_after.png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name, take in PARTS.items():
            if only in (None, name):
                with world_server(newest(hosts)) as server:  # a new one each, so that no part's files show in another
                    take(browser, server)


if __name__ == "__main__":
    main()
