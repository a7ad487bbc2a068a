"""Runs inside a host's python: seconds of the host's own imports, and of the pack's on top of them, as JSON.

python import_inside.py --host PATH --pack PATH
"""

from __future__ import annotations

import gc
import importlib
import sys
import time

import inside_host  # beside this file, which is a script


def main() -> None:
    started = time.perf_counter()
    wanted = inside_host.entered("pack")
    for name in ("utils.extra_config", "execution", "server", "nodes", "comfy_api.latest"):
        importlib.import_module(name)
    taken = time.perf_counter() - started
    gc.collect()  # of the host's million objects, which would otherwise fall due in the middle of the pack's import
    known = set(sys.modules)
    started = time.perf_counter()
    inside_host.load_pack(wanted.pack)
    ours = time.perf_counter() - started
    brought = sorted({name.partition(".")[0] for name in sys.modules.keys() - known} - {"duolora_pack"})
    inside_host.tell({"host": taken, "pack": ours, "brought": brought})


if __name__ == "__main__":
    main()
