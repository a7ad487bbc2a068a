"""What a training shows while it runs."""

from __future__ import annotations

import types
from typing import Any
from unittest import mock

import comfy.utils
from inside_host import of_the_pack


def check_pictures_take_a_hundredth_of_the_time() -> None:
    """Of 1,000 steps of 0.1 s, with pictures that cost 27 ms each: the first step has one, and the last."""
    progress = of_the_pack("nodes.host.progress")
    clock, shown = [100.0], list[int]()

    def picture(step: int) -> Any:
        clock[0] += 0.027
        shown.append(step)
        return types.SimpleNamespace(size=(512, 512))

    with (
        mock.patch.object(progress, "time", types.SimpleNamespace(monotonic=lambda: clock[0])),
        mock.patch.object(comfy.utils, "ProgressBar", lambda total: mock.Mock()),
    ):
        bar = progress.Progress(1000)
        for step in range(1, 1001):
            clock[0] += 0.1
            bar.update(step, lambda step=step: picture(step))
    assert (shown[0], shown[-1]) == (1, 1000)
    assert 0.005 < 0.027 * len(shown) / (clock[0] - 100) < 0.0105, len(shown)
