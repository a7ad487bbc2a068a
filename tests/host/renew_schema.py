"""Writes what the nodes are now into tests/host/schema.json, and an entry for each into locales/en/nodeDefs.json.

What has no words yet is null there, to be filled in.

PYTHONPATH=tests .venv/bin/python -m host.renew_schema
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from host.hosts import HOW_TO_ENABLE, Host, find_hosts
from host.node_schema import SAVED, advice, read_schema, written

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def catalogue(host: Host, pack: Path = ROOT) -> dict[str, Any]:
    """{"schema": as in schema.json, "words": as in nodeDefs.json} of the pack in this ComfyUI."""
    return host.ask(Path(__file__).with_name("inside_host.py"), "--pack", pack)


def main() -> None:
    hosts = find_hosts()
    if not hosts:
        sys.exit(HOW_TO_ENABLE)
    found = catalogue(hosts[0])
    said = advice(read_schema() if SAVED.exists() else {}, found["schema"])
    SAVED.write_text(written(found["schema"]), encoding="utf-8")
    ENGLISH.write_text(json.dumps(found["words"], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{said or 'The schema is as it was.'}\nWritten: {SAVED}, {ENGLISH}\n")


if __name__ == "__main__":
    main()
