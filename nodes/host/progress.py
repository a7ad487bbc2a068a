"""What the artist sees while a node works: the bar, the live picture, and the Cancel button's effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_execution.utils import get_executing_context
from PIL.Image import Image

_SECONDS_BETWEEN_PICTURES = 0.5


def tell(text: str) -> None:
    """Shows a text on the running node, before anything of it is done."""
    running = get_executing_context()
    if running is not None:  # else a script runs, in which the server's module need not even be there
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, running.node_id)


class Progress:
    """The progress bar of the running node, with a picture every half second and at the end."""

    def __init__(self, total: int):
        self._bar: Any = comfy.utils.ProgressBar(total)
        self._total = total
        self._last = 0.0

    def update(self, done: int, picture: Callable[[], Image]) -> None:
        """Shows the step, and `picture()` when it is time for one.

        Raises the host's own interrupt exception when the artist pressed Cancel.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        preview = None
        if done == self._total or now - self._last >= _SECONDS_BETWEEN_PICTURES:
            self._last = now
            shown = picture()
            preview = ("JPEG", shown, max(shown.size))
        self._bar.update_absolute(done, self._total, preview)
