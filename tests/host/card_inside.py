"""Runs inside a host's python: lets graphs run on a pretended card, and prints what happened, as JSON.

python card_inside.py --host PATH --base PATH --job FILE

FILE holds {"steps": n, "flows": [{"name", "graph", "settings", "plant"}, …]}. The last line of the output is
{"flows": [what `card.runs.Runs.run` says of each, …]}.
"""

from __future__ import annotations

import json

import inside_host  # beside this file, which is a script


def main() -> None:
    wanted = inside_host.entered("base", "job")
    job = json.loads(wanted.job.read_text(encoding="utf-8"))
    import comfy.cli_args

    comfy.cli_args.args.base_directory = str(wanted.base)
    from card.runs import Runs

    runs = Runs(job["steps"])
    inside_host.tell({"flows": [runs.run(flow) for flow in job["flows"]]})


if __name__ == "__main__":
    main()
