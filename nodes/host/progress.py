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
_LARGEST_SHARE = 0.01
"""Of the time for pictures: one is drawn by the processor, and meanwhile nothing is given to the card to do."""


def tell(text: str) -> None:
    """Shows a text on the running node, before anything of it is done."""
    running = get_executing_context()
    if running is not None:  # else a script runs, in which the server's module need not even be there
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, running.node_id)


class Progress:
    """The progress bar of the running node, with a picture now and then and at the end.

    The next picture comes after half a second, or when the last one's cost is a hundredth of the time since.
    """

    def __init__(self, total: int):
        self._bar: Any = comfy.utils.ProgressBar(total)
        self._total = total
        self._due = 0.0

    def update(self, done: int, picture: Callable[[], Image], at_once: bool = False) -> None:
        """Shows the step, and `picture()` when it is time for one, or at once.

        Raises the host's own interrupt exception when the artist pressed Cancel.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        started = time.monotonic()
        if not (at_once or done == self._total or started >= self._due):
            self._bar.update_absolute(done, self._total, None)
            return
        shown = picture()
        self._bar.update_absolute(done, self._total, ("JPEG", shown, max(shown.size)))
        now = time.monotonic()
        self._due = now + max(_SECONDS_BETWEEN_PICTURES, (now - started) / _LARGEST_SHARE)
