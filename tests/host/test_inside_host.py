"""The checks of the folder `inside`, which run in a host's own python: one process for all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from host.hosts import Host

HERE = Path(__file__).resolve().parent
CHECKS = [
    f"{path.stem}.{name}"
    for path in sorted((HERE / "inside").glob("*.py"))
    for name in re.findall(r"^def (check_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def failures(host: Host) -> dict[str, Any]:
    return host.ask(HERE / "checks_inside.py", "--pack", HERE.parents[1])


@pytest.mark.parametrize("check", CHECKS)
def test_inside(failures: dict[str, Any], check: str) -> None:
    assert failures[check] == "", failures[check]
