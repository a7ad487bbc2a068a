"""The flows of one host process, one after the other, each from an empty card to an empty card."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
from card.activity import Activity
from card.narrow_files import accept_narrow_checkpoints
from card.planted import PLANTED
from card.pretended import pretended_card
from card.settings import HostSettings
from in_process import InProcess


class Runs:
    """All flows of one process; `steps` is how many steps each training takes, and no other work has."""

    def __init__(self, steps: int):
        self._executor = InProcess()
        self._steps = steps
        self._encoders_for: str | None = None
        accept_narrow_checkpoints()

    def run(self, flow: dict[str, Any]) -> dict[str, Any]:
        """How a flow ended, and what the card was asked to do.

        Args:
            flow: {"name", "graph", "settings": those of the host, "plant": the mistake to be made, or ""}
        """
        settings = HostSettings(**flow["settings"])
        self._make_encoders(settings)
        started = time.monotonic()
        with pretended_card(settings) as activity:
            self._watch_steps(activity)
            with PLANTED[flow["plant"]]() if flow["plant"] else nullcontext():
                outcome = self._executor.run(flow["graph"])
            self._executor.forget()
            comfy.model_management.unload_all_models()
        gc.collect()
        kernels, syncs = activity.per_step()
        return {
            "name": flow["name"],
            "status": outcome.status,
            "message": outcome.message,
            "faults": activity.faults,
            "steps": len(activity.steps),
            "kernels": kernels,
            "syncs": syncs,
            "waits": activity.syncs.most_common(12),
            "seconds": round(time.monotonic() - started, 1),
        }

    def _watch_steps(self, activity: Activity) -> None:
        """A training tells the page of each of its steps."""

        def told(value: int, total: int, preview: Any, node_id: Any = None) -> None:
            if total == self._steps:
                activity.end_of_step()

        comfy.utils.set_progress_bar_global_hook(told)

    def _make_encoders(self, settings: HostSettings) -> None:
        """Encoders for the device that such a host has them on; the fixtures pack keeps them from flow to flow.

        They are made as plain models: the host fills a streamed one from a file only.
        """
        if self._encoders_for == settings.vram:
            return
        self._encoders_for = settings.vram
        for name in ("tiny_clip", "tiny_vision"):
            getattr(of_fixtures(name), name).cache_clear()
        with pretended_card(replace(settings, dynamic=False)):
            of_fixtures("tiny_clip").tiny_clip(0)


def of_fixtures(module: str) -> Any:
    """A module of the fixtures pack, which the host has loaded under a name of its own."""
    (found,) = [each for name, each in sys.modules.items() if name.endswith(f"duolora_fixtures.{module}")]
    return found
