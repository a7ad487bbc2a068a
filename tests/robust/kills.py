"""Kills processes in the middle of saving, and lets processes save at once: what is found afterwards is whole.

    PYTHONPATH=.:tests python -c "from robust.kills import run; print(run())"

A process kills itself right before or after one of the calls into C, and so into the system, that a save consists of:
half of them anywhere, half at the last forty, from flushing to clearing up. So even the moments between two calls are
hit, which no clock would find.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from duolora_core.files.atomic_write import PREFIX, SUFFIX, write_numbered
from duolora_core.files.safetensors_bytes import safetensors_chunks
from duolora_core.lora.save import write_safetensors

BYTES = 12_000_000
"""Of one file: some tens of milliseconds to write and to bring to the disk."""

_ENDING = ".safetensors"
_ROOT = Path(__file__).parents[2]


def run(kills: int = 200, pairs: int = 20, saves_each: int = 4) -> dict[str, int]:
    """All of it; prints what was hit. {"tried": kills and pairs, "failed": how many of them broke a promise}.

    In a process of its own, which has no threads: one that has some cannot safely be forked, and a fresh interpreter
    for each save would take minutes to import torch.
    """
    command = [sys.executable, "-c", f"from robust.kills import forking; forking({kills}, {pairs}, {saves_each})"]
    paths = os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    *told, result = done.stdout.splitlines()
    print("\n".join(told))  # noqa: T201
    return json.loads(result)


def forking(kills: int, pairs: int, saves_each: int) -> None:
    """What `run` starts; prints the result as its last line."""
    with tempfile.TemporaryDirectory(prefix="duolora-kills-") as folder:
        found, broken = _all_kills(Path(folder) / "kills", kills)
        torn = sum(not _pair_saves(Path(folder) / f"pair{number}", saves_each) for number in range(pairs))
    told = ", ".join(f"{count} {when}" for when, count in sorted(found.items()))
    print(f"killed {kills} saves: {told}; {broken} broke a promise")  # noqa: T201
    print(f"{pairs} pairs of processes, {saves_each} saves each at once: {torn} broke a promise")  # noqa: T201
    print(json.dumps({"tried": kills + pairs, "failed": broken + torn}))  # noqa: T201


def _tensors(kind: int) -> dict[str, torch.Tensor]:
    """Many layers and a large one, all of one recognisable number."""
    small = {f"layer{i}.lora_down.weight": torch.full((8, 320), float(kind)) for i in range(100)}
    return {"large": torch.full((BYTES // 4,), float(kind)), **small}


def _content(kind: int) -> bytes:
    return b"".join(bytes(chunk) for chunk in safetensors_chunks(_tensors(kind), {"kind": str(kind)}))


def _save(folder: Path, kind: int, tensors: dict[str, torch.Tensor]) -> Path:
    return write_numbered(folder, "merged", _ENDING, lambda path: write_safetensors(path, tensors, {"kind": str(kind)}))


def _in_a_child(work: Callable[[], object]) -> int:
    """Forks a process that does this and nothing else; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def _save_and_die(folder: Path, tensors: dict[str, torch.Tensor], last: int) -> int:
    """Saves, and dies at the `last` call into C or return from it; how many there were, if it lives."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("c_call", "c_return"):
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1

    sys.setprofile(count)
    _save(folder, 1, tensors)
    sys.setprofile(None)
    return calls


def _all_kills(folder: Path, kills: int) -> tuple[Counter[str], int]:
    """Where the kills landed, and after how many of them the folder was not as it should be."""
    tensors, whole, found, broken = _tensors(1), _content(1), Counter[str](), 0
    folder.mkdir()
    _save(folder, 1, tensors)  # the first of a process compiles patterns and fills caches
    calls = _save_and_die(folder, tensors, -1)
    for number in range(kills):
        for path in folder.iterdir():
            path.unlink()
        place = (number // 2 + random.Random(number).random()) / (kills // 2 + 1)  # in [0, 1), evenly spread
        first = max(0, calls - 40) if number % 2 else 0
        at = first + int(place * (calls - first))
        os.waitpid(_in_a_child(lambda at=at: _save_and_die(folder, tensors, at)), 0)
        found[_moment(folder, len(whole))] += 1
        broken += not (_only_whole_files(folder, whole) and _next_save_is_clean(folder, whole))
    return found, broken


def _moment(folder: Path, size: int) -> str:
    """When the kill came, told by what it left."""
    files = list(folder.iterdir())
    temporary = [path for path in files if path.name.startswith(PREFIX)]
    if len(files) > len(temporary):
        return "between naming and clearing up" if temporary else "after"
    if not temporary:
        return "before"
    return "while writing" if temporary[0].stat().st_size < size else "while bringing it to the disk"


def _only_whole_files(folder: Path, whole: bytes) -> bool:
    files = [path for path in folder.iterdir() if not (path.name.startswith(PREFIX) and path.name.endswith(SUFFIX))]
    names = {path.name for path in files}
    return names <= {f"merged_00001{_ENDING}"} and all(path.read_bytes() == whole for path in files)


def _next_save_is_clean(folder: Path, whole: bytes) -> bool:
    before = {path.name for path in folder.glob(f"*{_ENDING}")}
    saved = _save(folder, 1, _tensors(1))
    return saved.read_bytes() == whole and {path.name for path in folder.iterdir()} == before | {saved.name}


def _pair_saves(folder: Path, saves_each: int) -> bool:
    """Two processes save under one prefix as fast as they can, from the same moment; whether all files are whole."""
    start = time.monotonic() + 0.2

    def saves(kind: int) -> None:
        tensors = _tensors(kind)
        time.sleep(max(0.0, start - time.monotonic()))
        for _ in range(saves_each):
            _save(folder, kind, tensors)

    for child in [_in_a_child(lambda kind=kind: saves(kind)) for kind in (1, 2)]:
        os.waitpid(child, 0)
    left = sorted(folder.iterdir())
    held = [path.read_bytes() for path in left]
    names = [f"merged_{number:05}{_ENDING}" for number in range(1, 2 * saves_each + 1)]
    for path in left:
        path.unlink()
    return [path.name for path in left] == names and all(held.count(_content(kind)) == saves_each for kind in (1, 2))
