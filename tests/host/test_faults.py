"""A few injected faults and merges in `make test`; `tests/robust` has many."""

from __future__ import annotations

from host.hosts import Host
from robust.faults import faults_in


def test_faults_leave_nothing_behind(host: Host) -> None:
    """At random calls of random stages, on the narrow model: state, files and pictures are those of a fresh process."""
    found = faults_in(host, count=8, seed=3)
    assert found["injected"] == 8
    assert found["failures"] == []
