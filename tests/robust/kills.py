"""Kills processes in the middle of saving, and lets processes save at once: what is found afterwards is whole.

    PYTHONPATH=.:tests python -c "from robust.kills import run; print(run())"

A third of the kills comes from outside, after a time spread over the length of a whole save. In the others the process
kills itself right before or after one of the calls into C, and so into the system, that a save consists of: one third
over all of them, one over the last forty, from flushing to clearing up. So even the moments between two calls are hit,
which no clock would find.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

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
    workers = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="duolora-kills-") as folder:
        found, broken = _all_kills(workers, Path(folder) / "kills", kills)
        torn = sum(not _pair_saves(workers, Path(folder) / f"pair{number}", saves_each) for number in range(pairs))
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


def _all_kills(workers: Any, folder: Path, kills: int) -> tuple[Counter[str], int]:
    """Where the kills landed, and after how many of them the folder was not as it should be."""
    whole, found, broken = _content(1), Counter[str](), 0
    calls, seconds = _length_of_a_save(workers, folder)
    for number in range(kills):
        place = (number // 3 + random.Random(number).random()) / (kills // 3 + 1)  # in [0, 1), evenly spread
        if number % 3 == 0:
            _killed(workers, folder, None, 1.1 * place * seconds)
        else:
            first = max(0, calls - 40) if number % 3 == 1 else 0
            _killed(workers, folder, first + int(place * (calls - first)), 0.0)
        found[_moment(folder, len(whole))] += 1
        broken += not (_only_whole_files(folder, whole) and _next_save_is_clean(folder, whole))
        for path in folder.iterdir():
            path.unlink()
    return found, broken


def _saving(folder: Path, told: Connection, call: int | None) -> None:
    """A child's life: says when it begins to save and when it has saved, unless it dies at its `call`-th call."""
    tensors, calls = _tensors(1), 0
    told.send(None)
    started = time.perf_counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("c_call", "c_return"):
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1

    if call is not None:
        sys.setprofile(count)
    _save(folder, 1, tensors)
    sys.setprofile(None)
    told.send((calls, time.perf_counter() - started))


@contextmanager
def _child(
    workers: Any, target: Callable[..., None], *arguments: object
) -> Generator[tuple[BaseProcess, Connection], None, None]:
    ours, theirs = workers.Pipe()
    process: BaseProcess = workers.Process(target=target, args=(*arguments[:1], theirs, *arguments[1:]))
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _length_of_a_save(workers: Any, folder: Path) -> tuple[int, float]:
    """(calls, seconds) of one save that nobody disturbs, the seconds without counting calls.

    The first save of a process compiles patterns and fills caches, so one is made here before children are forked.
    """
    folder.mkdir()
    _save(folder, 1, _tensors(1)).unlink()
    lengths: list[tuple[int, float]] = []
    for call in (-1, None, None, None):
        with _child(workers, _saving, folder, call) as (_, told):
            lengths.append(told.recv())
        for path in folder.iterdir():
            path.unlink()
    return lengths[0][0], min(seconds for _, seconds in lengths[1:])


def _killed(workers: Any, folder: Path, call: int | None, delay: float) -> None:
    with _child(workers, _saving, folder, call) as (process, _):
        if call is None:
            time.sleep(delay)
        else:
            process.join()


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


def _pair_saves(workers: Any, folder: Path, saves_each: int) -> bool:
    """Two processes that save under one prefix as fast as they can; whether each got its own whole files."""
    ours: list[Connection] = []
    children: list[BaseProcess] = []
    for kind in (1, 2):
        near, far = workers.Pipe()
        child = workers.Process(target=_saves, args=(folder, far, kind, saves_each))
        child.start()
        far.close()
        ours.append(near)
        children.append(child)
    for near in ours:
        near.recv()
    for near in ours:
        near.send(None)
    names = [near.recv() if near.poll(120) else [] for near in ours]
    for child in children:
        child.kill()
        child.join()
    own = all(
        (folder / name).read_bytes() == _content(kind)
        for kind, held in zip((1, 2), names, strict=True)
        for name in held
    )
    saved = [name for held in names for name in held]
    left = {path.name for path in folder.iterdir()}
    for name in left:
        (folder / name).unlink()
    return own and len(saved) == 2 * saves_each == len(left) and set(saved) == left


def _saves(folder: Path, told: Connection, kind: int, count: int) -> None:
    tensors = _tensors(kind)
    told.send(None)
    told.recv()
    told.send([_save(folder, kind, tensors).name for _ in range(count)])
