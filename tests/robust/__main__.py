"""All attacks, one after another, and in the last line what came of them as JSON; ends with 1 if any succeeded.

make test-robust
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from host.hosts import HOW_TO_ENABLE, find_hosts

from . import faults, kills, malformed, merges

SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "malformed": malformed.run,
    "faults": faults.run,
    "kills": kills.run,
    "merges": merges.run,
}


def main() -> int:
    if not find_hosts():
        print(f"faults and merges happen inside ComfyUI. {HOW_TO_ENABLE}", file=sys.stderr)  # noqa: T201
        return 2
    found: dict[str, Any] = {}
    for name, run in SECTIONS.items():
        started = time.monotonic()
        found[name] = run()
        print(f"{name}: {json.dumps(found[name])}, {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
    found["failures"] = sum(section["failed"] for section in found.values())
    print(json.dumps(found))  # noqa: T201
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
