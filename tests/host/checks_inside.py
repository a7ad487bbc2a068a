"""Runs inside a host's python: every check of the folder `inside`; prints {file.check: how it failed, or ""} as JSON.

python checks_inside.py --host PATH --pack PATH
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

import inside_host  # beside this file, which is a script


def main() -> None:
    wanted = inside_host.entered("pack")
    sys.path.append(str(wanted.pack))  # for the benchmarks; behind the host, whose `nodes` it would hide
    inside_host.load_pack(wanted.pack)
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).with_name("inside").glob("*.py")):
        module = importlib.import_module(f"inside.{path.stem}")
        for name, check in vars(module).items():
            if name.startswith("check_"):
                found[f"{path.stem}.{name}"] = failure(check)
    inside_host.tell(found)


def failure(check: object) -> str:
    assert callable(check)
    try:
        check()
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main()
