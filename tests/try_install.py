"""The pack as the registry hands it out: its archive, comfy-cli's verdict, and what its import costs in each ComfyUI.

make test-install

The last line is all of it as JSON. Ends with 1 if the archive is not what it should be or too large, if comfy-cli has
anything against the pack, or if its import is slow or brings other packages; with 2 if there is no ComfyUI.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import registry_cli
from host.hosts import HOW_TO_ENABLE, Host, find_hosts
from install import ROOT, installed_files

MOST_BYTES = 3_000_000
MOST_RATIO = 0.1
"""Of the pack's import to the host's own: seconds would be those of the machine."""
TIMES = 3


def unpacked(folder: Path) -> tuple[Path, int, list[str]]:
    """The pack out of its archive, the archive's bytes, and what is wrong with it."""
    archive = registry_cli.packed(folder)
    pack = folder / "ComfyUI-DuoLoRA"
    with zipfile.ZipFile(archive) as opened:
        names = {each for each in opened.namelist() if not each.endswith("/")}
        opened.extractall(pack)
    odd = names ^ {path.as_posix() for path in installed_files()}
    wrong = [f"the archive and tests/install.py differ in {sorted(odd)}"] if odd else []
    size = archive.stat().st_size
    if size >= MOST_BYTES:
        wrong.append(f"the archive has {size} bytes, more than {MOST_BYTES}")
    return pack, size, wrong


def import_cost(host: Host, pack: Path) -> dict[str, Any]:
    """Seconds of the host's and the pack's imports, the best of some; the first of them also writes the bytecode."""
    script = ROOT / "tests" / "host" / "import_inside.py"
    runs = [host.ask(script, "--pack", pack) for _ in range(TIMES)]
    ours, hosts = min(each["pack"] for each in runs), min(each["host"] for each in runs)
    return {
        "host_s": round(hosts, 2),
        "pack_s": round(ours, 3),
        "ratio": round(ours / hosts, 3),
        "brought": runs[-1]["brought"],
    }


def slow(version: str, cost: dict[str, Any]) -> list[str]:
    """What is wrong with an import."""
    wrong: list[str] = []
    if cost["ratio"] > MOST_RATIO:
        wrong.append(f"in ComfyUI {version} the import takes {cost['ratio']} of the host's, more than {MOST_RATIO}")
    if cost["brought"]:
        wrong.append(f"in ComfyUI {version} the import brings {', '.join(cost['brought'])}, which the host had not")
    return wrong


def main() -> int:
    hosts = find_hosts()
    if not hosts:
        print(f"the import is measured in ComfyUI. {HOW_TO_ENABLE}", file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory() as folder:
        pack, size, wrong = unpacked(Path(folder))
        print(f"archive: {size / 1e6:.2f} MB, {len(installed_files())} files", flush=True)  # noqa: T201
        verdict = registry_cli.faults()
        wrong += [f"comfy node validate: {verdict}"] if verdict else []
        print(f"comfy node validate: {'refused' if verdict else 'passed'}", flush=True)  # noqa: T201
        costs: dict[str, dict[str, Any]] = {}
        for host in hosts:
            cost = costs[host.version] = import_cost(host, pack)
            wrong += slow(host.version, cost)
            seconds = f"{cost['pack_s']} s on top of {cost['host_s']} s, ratio {cost['ratio']}"
            print(f"ComfyUI {host.version}: import {seconds}", flush=True)  # noqa: T201
    for each in wrong:
        print(f"FAILED: {each}")  # noqa: T201
    print(json.dumps({"archive_bytes": size, "validate": not verdict, "import": costs, "failed": len(wrong)}))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
