"""Text that came out of a file, made fit for messages, reports and prompts: bounded and printable."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_IN_PLACE_OF_CONTROL = "\N{REPLACEMENT CHARACTER}"


def sanitize(text: str, most: int = 200, *, keep_lines: bool = False) -> str:
    """At most `most` characters of `text`, without terminal escapes, direction overrides and broken surrogates.

    Every kind of space becomes a plain one, except that `keep_lines` leaves line feeds where they are.
    """
    shown = "".join(_shown(c, keep_lines) for c in text[:most])
    return shown if len(text) <= most else shown[: most - 1] + "…"


def listed(lines: Iterable[str], most: int = 20) -> list[str]:
    """The first `most` lines, then one that says how many more there are."""
    every = list(lines)
    return every if len(every) <= most else [*every[:most], f"… and {len(every) - most} more"]


def json_of(text: str) -> Any:
    """What a JSON text says, as plain data.

    Raises:
        ValueError: it is no JSON, or nested too deep to be parsed.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _shown(c: str, keep_lines: bool) -> str:
    if c.isprintable() or (c == "\n" and keep_lines):
        return c
    return " " if c.isspace() else _IN_PLACE_OF_CONTROL
