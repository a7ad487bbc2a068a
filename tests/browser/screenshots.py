"""Makes every picture of the README, of the node table and of workflows/ again.

PYTHONPATH=tests:. .venv/bin/python -m browser.screenshots [--only nodes]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from browser.chromium import ARGUMENTS, HOW_TO_ENABLE, find_chromium
from browser.comfy_page import ComfyPage
from browser.node_pictures import add_files, take_node_pictures
from browser.world_server import world_server
from host.comfy_host import ComfyServer
from host.hosts import HOW_TO_ENABLE as HOW_TO_GET_A_HOST
from host.hosts import Host, find_hosts

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"


def newest(hosts: list[Host]) -> Host:
    return max(hosts, key=lambda host: [int(part) for part in host.version.split(".")])


def page_of(browser: Browser, server: ComfyServer, width: int = 1600, height: int = 1000) -> ComfyPage:
    """A new page with two pixels of the picture for each of the page's."""
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=2)
    return ComfyPage(context.new_page(), server).open()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("nodes",), help="a part of them")
    parser.parse_args()
    chromium, hosts = find_chromium(), find_hosts()
    if chromium is None or not hosts:
        sys.exit(HOW_TO_GET_A_HOST if chromium else HOW_TO_ENABLE)
    with sync_playwright() as playwright, world_server(newest(hosts)) as server:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        add_files(server.loras)
        take_node_pictures(page_of(browser, server, height=1600), PICTURES / "nodes")


if __name__ == "__main__":
    main()
