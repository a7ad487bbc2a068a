"""A node schema for every supported host: arguments that an older ComfyUI does not know are left out."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

_KNOWN = set(inspect.signature(io.Schema.__init__).parameters)


def schema(node_id: str, **arguments: Any) -> io.Schema:
    """io.Schema with the prefixed id."""
    known = {key: value for key, value in arguments.items() if key in _KNOWN}
    return io.Schema(node_id=f"DuoLoRA{node_id}", **known)
