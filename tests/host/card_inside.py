"""Runs inside a host's python: lets graphs run on a pretended card, and prints what happened, as JSON.

python card_inside.py --host PATH --base PATH --job FILE

FILE holds {"steps": n, "flows": [{"name", "graph", "settings", "plant"}, …]}. The last line of the output is
{"flows": [{"name", "status", "message", "faults", "kernels", "syncs", "waits", "seconds"}, …]}.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script
from in_process import InProcess


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--job", type=Path, required=True)
    wanted = parser.parse_args()
    job = json.loads(wanted.job.read_text(encoding="utf-8"))
    inside_host.enter(wanted.host)
    import comfy.cli_args

    comfy.cli_args.args.base_directory = str(wanted.base)
    runs = Runs(job["steps"])
    found: list[dict[str, Any]] = []
    for flow in job["flows"]:
        found.append(runs.run(flow))
        sys.stderr.write(f"{json.dumps(found[-1])}\n")
    sys.stdout.write("\n" + json.dumps({"flows": found}) + "\n")


class Runs:
    """All flows of one process."""

    def __init__(self, steps: int):
        from card.narrow_files import accept_narrow_checkpoints

        self.executor = InProcess()
        self.steps = steps
        accept_narrow_checkpoints()

    def run(self, flow: dict[str, Any]) -> dict[str, Any]:
        """One flow from an empty card to an empty card."""
        import comfy.model_management
        import comfy.utils
        from card.planted import PLANTED
        from card.pretended import pretended_card
        from card.settings import HostSettings

        settings = HostSettings(**flow["settings"])
        started = time.monotonic()
        try:
            with pretended_card(settings) as activity:

                def told(value: int, total: int, preview: Any, node_id: Any = None) -> None:
                    if total == self.steps:
                        activity.end_of_step()

                comfy.utils.set_progress_bar_global_hook(told)
                with PLANTED[flow["plant"]]() if flow["plant"] else nullcontext():
                    outcome = self.executor.run(flow["graph"])
                self.executor.forget()
                comfy.model_management.unload_all_models()
        finally:
            forget_small_models()
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


def forget_small_models() -> None:
    """The fixtures pack keeps its encoders; the next flow's may belong on another device."""
    for name, module in list(sys.modules.items()):
        if "duolora_fixtures.tiny_" in name:
            for each in vars(module).values():
                if isinstance(each, functools._lru_cache_wrapper):  # pyright: ignore[reportPrivateUsage]
                    each.cache_clear()


if __name__ == "__main__":
    main()
