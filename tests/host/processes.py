"""Which tests of a host share a process of pytest-xdist, and so a server."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from host.hosts import find_hosts


def share_out(items: Sequence[pytest.Item]) -> None:
    """Gives each ComfyUI a process of its own, or as many as there are to go round; a file's tests stay together.

    It is for a `pytest_collection_modifyitems` that runs before pytest-xdist's, which reads the groups.
    """
    versions = [host.version for host in find_hosts()]
    shares = max(1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) // max(1, len(versions)))
    files = sorted({item.path for item in items})
    for item in items:
        of_host = [version for version in versions if version in item.name]
        group = f"{of_host[0]} {files.index(item.path) % shares}" if of_host else "no host"
        item.add_marker(pytest.mark.xdist_group(group))
