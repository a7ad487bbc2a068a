"""A node schema for every supported host: arguments that an older ComfyUI does not know are left out."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

_KNOWN = set(inspect.signature(io.Schema.__init__).parameters)


def schema(node_id: str, **arguments: Any) -> io.Schema:
    """io.Schema with the prefixed id, and each output shown under its own id where it has no other name.

    An older ComfyUI would show the socket's type instead: four outputs called STRING on a row of nodes.
    """
    for output in arguments.get("outputs", ()):
        output.display_name = output.display_name or output.id
    known = {key: value for key, value in arguments.items() if key in _KNOWN}
    return io.Schema(node_id=f"DuoLoRA{node_id}", **known)
