"""Outputs that have no value in this run."""

from __future__ import annotations

from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker


def blocked_output(reason: str | None = None) -> Any:
    """In place of an output's value: the nodes connected to it do not run, all others do.

    Args:
        reason: shown as an error at those nodes; None: they are left out silently
    """
    return ExecutionBlocker(reason)
