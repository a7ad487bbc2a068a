"""Reads LoRA files of every kind and compares each layer with the trainer's own code and with ComfyUI's loader.

    PYTHONPATH=.:tests python -m wild_loras

The last line is one JSON object: files, wrong ones, the worst relative error and the mean energy lost at rank 64 of
each kind; how many files were refused with their reason; how many were compared with the loader of each ComfyUI found.
Ends with 1 if any is wrong, and with 2 where there is no ComfyUI to compare with.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from duolora_core import DuoLoraError
from host.hosts import HOW_TO_ENABLE, Host, find_hosts
from wild_loras import by_hand, by_lycoris, by_peft, refused
from wild_loras.judge import TOLERANCE, Verdict, judged
from wild_loras.layers import FAMILIES, family
from wild_loras.sample import Sample

ROOT = Path(__file__).resolve().parents[2]


def run(names: list[str]) -> dict[str, Any]:
    """The object of the last line, for some families."""
    kinds: dict[str, list[Verdict]] = defaultdict(list)
    failed = 0
    with TemporaryDirectory() as folder:
        rows: list[dict[str, str]] = []  # paths alone: what the files must change would be gigabytes
        files = 0
        for name in names:
            model, place = family(name), Path(folder) / name
            save_file(dict(model.weights), Path(folder) / f"{name}.weights.safetensors")
            for source in (by_lycoris, by_peft, by_hand):
                for sample in source.samples(model, place):
                    verdict = _judged(sample)
                    kinds[sample.kind].append(verdict)
                    files += 1
                    if sample.in_core is True:
                        rows.append(_row(sample, Path(folder)))
                    if _is_wrong(verdict):
                        failed += 1
                        _say(f"FAILED {name} {sample.path.parent.name}: {verdict}")
            _say(f"{name}: {files} files so far")
        faults = list(itertools.chain.from_iterable(refused.faults(family(n), Path(folder) / n) for n in names))
        for fault in filter(None, faults):
            _say(f"FAILED {fault}")
        hosts = find_hosts()
        with ThreadPoolExecutor() as pool:
            counts = list(pool.map(partial(_against, rows, Path(folder)), hosts))
        against = {host.version: count for host, count in zip(hosts, counts, strict=True)}
    failed += sum(fault is not None for fault in faults) + sum(wrong for _, wrong in against.values())
    return {
        "kinds": {kind: _summary(verdicts) for kind, verdicts in kinds.items()},
        "refused_with_reason": sum(fault is None for fault in faults),
        "against_core": {version: count for version, (count, _) in against.items()},
        "failed": failed,
    }


def _judged(sample: Sample) -> Verdict:
    try:
        return judged(sample)
    except DuoLoraError as error:
        return Verdict(1.0, 1.0, f"refused: {error}")


def _is_wrong(verdict: Verdict) -> bool:
    return bool(verdict.fault) or not verdict.worst <= TOLERANCE


def _summary(verdicts: list[Verdict]) -> dict[str, Any]:
    return {
        "files": len(verdicts),
        "wrong": sum(map(_is_wrong, verdicts)),
        "worst_relative_error": float(f"{max(each.worst for each in verdicts):.1e}"),
        "lost_energy": round(sum(each.lost for each in verdicts) / len(verdicts), 4),
    }


def _row(sample: Sample, folder: Path) -> dict[str, str]:
    """What a host's script is told of a file."""
    weights = folder / f"{sample.family.name}.weights.safetensors"
    return {"path": str(sample.path), "weights": str(weights), "family": sample.family.name}


def _against(rows: list[dict[str, str]], folder: Path, host: Host) -> tuple[int, int]:
    """Files compared with a host's loader, and how many of them differ."""
    manifest = folder / f"{host.version}.json"
    manifest.write_text(json.dumps(rows), encoding="utf-8")
    script = ROOT / "tests/host/adapters_inside.py"
    found = host.ask(script, "--pack", ROOT, "--manifest", manifest, timeout=600)
    wrong = 0
    for path, answer in found.items():
        if answer["differ"] or not answer["worst"] <= TOLERANCE:
            wrong += 1
            _say(f"FAILED {Path(path).parent.name} in ComfyUI {host.version}: {answer}")
    return len(found), wrong


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    if not find_hosts():
        sys.stderr.write(f"files are compared with ComfyUI's loader. {HOW_TO_ENABLE}\n")
        return 2
    result = run(sys.argv[1:] or list(FAMILIES))
    _say(json.dumps(result, ensure_ascii=False))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # of PEFT, on targets named as a regular expression would be
    torch.set_num_threads(1)  # with two, a wait for ever was seen in PEFT's merge, and never again (docs/log.md)
    sys.exit(main())
