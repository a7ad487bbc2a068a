"""Killed processes leave whole files or none; saves at once do not disturb each other. A few of many: see robust."""

from __future__ import annotations

import os

import pytest

from robust.kills import run


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL; runs on Linux and macOS")
def test_killed_saves_and_pairs_of_saves() -> None:
    assert run(kills=9, pairs=2, saves_each=3) == {"tried": 11, "failed": 0}
