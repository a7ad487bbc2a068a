"""Tries files of strangers: each is merged rightly or refused clearly, in bounded time and memory.

    PYTHONPATH=.:tests python -m robust.malformed [count]

The files made by hand (`corpus`) come first, then `count` files of the strategies (`strangers`, `spoiling`), the same
ones in every run. A failure is printed with the smallest input that hypothesis finds, which is kept for a closer look.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TypeVar

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from robust import corpus, spoiling, strangers
from robust.verdicts import lora_fault, masks_fault, pictures_fault

SEED = 20_260_101
COUNT = 4000
"""Inputs of the strategies in a whole run: half a minute to a minute of one core."""
LONGEST = 300
"""Seconds after which one group of inputs is a hang: it says where, and the process ends."""

T = TypeVar("T")


class Fault(AssertionError):
    """An input that was not taken as it must be."""


def run(count: int = COUNT) -> dict[str, int]:
    """{"tried": inputs, "failed": groups of inputs and files made by hand with a failure}; prints each failure."""
    _say(f"malformed: seed {SEED}, {count} inputs of the strategies and the corpus")
    one_thread, before = 1, torch.get_num_threads()
    torch.set_num_threads(one_thread)
    try:
        tallies = [_corpus(), *_strategies(count)]
    finally:
        torch.set_num_threads(before)
        faulthandler.cancel_dump_traceback_later()
    return {"tried": sum(tried for tried, _ in tallies), "failed": sum(failed for _, failed in tallies)}


def _corpus() -> tuple[int, int]:
    failed = 0
    found = corpus.cases()
    for name, case in found.items():
        _end_a_hang()
        with TemporaryDirectory() as folder:
            fault = case.fault(Path(folder))
            if (Path(folder) / "unpickled").exists():
                fault = "was unpickled"
        if fault is not None:
            failed += 1
            _say(f"FAILED corpus, {name!r}: {fault}")
    return len(found), failed


def _strategies(count: int) -> list[tuple[int, int]]:
    with TemporaryDirectory() as folder:
        lora, masks = Path(folder) / "odd.safetensors", Path(folder) / "odd.masks.safetensors"

        def written(path: Path, judge: Callable[[Path], str | None]) -> Callable[[bytes], str | None]:
            def verdict(content: bytes) -> str | None:
                path.write_bytes(content)
                return judge(path)

            return verdict

        of_lora, of_masks = written(lora, lora_fault), written(masks, masks_fault)
        return [
            _tried("headers", spoiling.headers(), of_lora, count * 30 // 100),
            _tried("contents", strangers.contents(), of_lora, count * 30 // 100),
            _tried("spoilt bytes", spoiling.spoilt(spoiling.good_lora()), of_lora, count * 20 // 100),
            _tried("masks", spoiling.masks(), of_masks, count * 12 // 100),
            _tried("pictures", strangers.pictures(), pictures_fault, count * 8 // 100),
        ]


def _tried(name: str, inputs: SearchStrategy[T], judge: Callable[[T], str | None], count: int) -> tuple[int, int]:
    tried = 0

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(inputs)
    def attempt(one: T) -> None:
        nonlocal tried
        tried += 1
        fault = judge(one)
        if fault is not None:
            smallest.append((one, fault))
            raise Fault(fault)

    smallest: list[tuple[T, str]] = []
    _end_a_hang()
    try:
        attempt()
    except Fault:
        one, fault = smallest[-1]
        _say(f"FAILED {name}: {fault}\n  with {_kept(one)}")
        return tried, 1
    return tried, 0


def _end_a_hang() -> None:
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)


def _kept(one: object) -> str:
    """Where an input is kept, or what it is."""
    if isinstance(one, Tensor):
        return f"{one.dtype} {tuple(one.shape)} of {one.flatten()[:1].tolist()}"
    path = Path(mkdtemp(prefix="malformed-")) / "odd.safetensors"
    assert isinstance(one, bytes)
    path.write_bytes(one)
    return os.fspath(path)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _say(str(run(*map(int, sys.argv[1:]))))
