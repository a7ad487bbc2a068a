"""A real ComfyUI in which an artist's graph finds its files: the shapes world as its checkpoint."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator
from pathlib import Path

from host.comfy_host import ComfyServer
from host.hosts import Host

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # no first-run graph on top of ours
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Queue.QPOV2": False,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
}
"""Of somebody who has used ComfyUI before, with a plain canvas for the pictures."""


def settle_in(server: ComfyServer) -> None:
    """Give the server a user with settings, so that a page need not greet a stranger or miss files."""
    shutil.copy(server.host.path / "input" / "example.png", server.base / "input")  # what every ComfyUI brings
    user = server.base / "user" / "default"
    for folder in ("workflows", "subgraphs"):
        (user / folder).mkdir(parents=True, exist_ok=True)
    (user / "user.css").touch()
    (user / "comfy.templates.json").write_text("[]", encoding="utf-8")
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")


@contextlib.contextmanager
def world_server(host: Host) -> Generator[ComfyServer, None, None]:
    """A running server with this pack and the test-only one, previews on, and the user at home."""
    previews = ("--preview-method", "latent2rgb")
    with ComfyServer(
        host, pack_root=ROOT, fixtures_pack=ROOT / "tests" / "host" / "fixtures_pack", flags=previews
    ) as server:
        settle_in(server)
        yield server
