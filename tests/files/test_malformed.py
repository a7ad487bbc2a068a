"""Files of strangers, a small part of `robust.malformed`: each is merged rightly or refused clearly."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from duolora_core import match_to_model, read_lora
from duolora_core.errors import LoraFileError
from robust import malformed, spoiling, verdicts


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and links; runs on Linux and macOS")
def test_nothing_that_a_stranger_writes_is_taken_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    tally = malformed.run(300)
    assert tally["failed"] == 0, capsys.readouterr().out
    assert tally["tried"] >= 300


def lies(_: Path) -> Any:
    raise LoraFileError("x" * 5000)


def breaks(_: Path) -> Any:
    raise KeyError("a bare one")


def says_nothing(_: Path) -> Any:
    raise LoraFileError("Something is wrong.")


def devours(path: Path) -> Any:
    torch.ones(200 << 20, dtype=torch.uint8)
    return read_lora(path)


@pytest.mark.parametrize(
    ("read", "words"),
    [(lies, "5000 characters"), (breaks, "KeyError"), (says_nothing, "does not name"), (devours, "more than 64")],
)
def test_the_verdict_sees_what_must_not_happen(
    read: Callable[[Path], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(spoiling.good_lora())
    assert verdicts.lora_fault(path) is None
    if read is devours and not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a process how much memory it took")
    gc.collect()  # else what earlier tests left is given back meanwhile, and hides what this one takes
    monkeypatch.setattr(verdicts, "read_lora", read)
    assert words in (verdicts.lora_fault(path) or "")


def test_the_verdict_sees_a_wrong_merge_and_a_file_taken_that_should_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(spoiling.good_lora())
    assert verdicts.lora_fault(path, "twice") == "taken, not refused as twice"
    monkeypatch.setattr(verdicts, "match_to_model", functools.partial(match_to_model, strength=2.0))
    assert "is off by" in (verdicts.lora_fault(path) or "")
