"""Runs inside a host's python: lets graphs run on a pretended card, and prints what happened, as JSON.

python card_inside.py --host PATH --base PATH --job FILE

FILE holds {"steps": n, "flows": [{"name", "graph", "settings", "plant"}, …]}. The last line of the output is
{"flows": [what `card.runs.Runs.run` says of each, …]}.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import inside_host  # beside this file, which is a script


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
    from card.runs import Runs

    runs = Runs(job["steps"])
    found = [runs.run(flow) for flow in job["flows"]]
    sys.stdout.write("\n" + json.dumps({"flows": found}) + "\n")


if __name__ == "__main__":
    main()
