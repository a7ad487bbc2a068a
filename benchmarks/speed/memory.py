"""The most bytes that a method's training step holds at once: exact, and the same on every machine.

On the meta device this gives the peak of full SDXL without its memory. It is what a caching allocator would report
as allocated, less its rounding and the scratch space inside kernels.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.contestants import CONTESTANTS, Task
from benchmarks.speed.live_memory import LiveMemory, fused_attention
from benchmarks.speed.meta import ReadingOnes


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """The most bytes that were alive at once of what the function allocated."""
    with LiveMemory(device) as live:
        work()
    return live.peak


def step_peak_bytes(contestant: str, task: Task) -> int:
    """Peak of a contestant's set-up and one training step on the meta device, without the UNet's own weights."""

    def whole() -> None:
        with CONTESTANTS[contestant](task) as step:
            step()

    with ReadingOnes(), fused_attention():
        return peak_bytes(whole, "meta")
