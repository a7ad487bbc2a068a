"""Every step of a progress bar is told: a newer ComfyUI leaves out those that come faster than ten a second.

It always tells of the first and the last step and of each with a picture, which is enough for a page, but tests count.
"""

from __future__ import annotations

from typing import Any

import comfy.utils


def tell_every_step() -> None:
    """Takes the limits away where the host has them."""
    host: Any = comfy.utils
    for limit in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        if hasattr(host, limit):
            setattr(host, limit, 0.0)
