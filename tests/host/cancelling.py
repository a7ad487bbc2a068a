"""Trainings that are cancelled as by the page's button, and what the page was shown of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from PIL import Image

from host.comfy_events import EventStream
from host.comfy_host import ComfyServer, GraphInterrupted
from host.graphs import Graph


@dataclass(frozen=True)
class Cancelled:
    """What was shown of a training until Cancel ended it.

    Attributes:
        pressed: the last step that was shown when Cancel was pressed
        shown: every step that was shown
    """

    pressed: int
    shown: list[int]
    previews: list[Image.Image]


def steps_shown(stream: EventStream, prompt_id: str, name: str, steps: int) -> list[int]:
    """The training steps of a node that the page was told of."""
    told = stream.of(prompt_id, "progress")
    return [each["value"] for each in told if each["node"] == name and each["max"] == steps]


def cancelled(
    server: ComfyServer, graph: Graph, name: str = "merge", *, steps: int, at: int = 1, timeout: float = 300
) -> Cancelled:
    """Queues the graph and presses Cancel as soon as `at` steps of a node's training have been shown."""
    with server.events() as stream:
        prompt_id = server.queue(graph)
        stream.wait_for(lambda stream: len(steps_shown(stream, prompt_id, name, steps)) >= at, timeout)
        pressed = steps_shown(stream, prompt_id, name, steps)[-1]
        server.interrupt()
        with pytest.raises(GraphInterrupted):
            server.wait(prompt_id)
        stream.wait_until_finished(prompt_id)
        return Cancelled(pressed, steps_shown(stream, prompt_id, name, steps), list(stream.previews))
