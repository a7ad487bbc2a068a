"""A node schema for every supported host, in the words of `locales/en/nodeDefs.json`.

Titles, descriptions and tooltips stand there and nowhere else, beside their translations; a node says what its inputs
are, with defaults and bounds. Arguments that an older ComfyUI does not know are left out.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY

_KNOWN = set(inspect.signature(io.Schema.__init__).parameters)
_WORDS = Path(__file__).parents[2] / "locales" / "en" / "nodeDefs.json"


def schema(node_id: str, **arguments: Any) -> io.Schema:
    """io.Schema with the prefixed id, the category and all words; what an argument or an input brings along goes first.

    Each output is shown under its own id where it has no other name: an older ComfyUI would show the socket's type
    instead, four outputs called STRING on a row of nodes.
    """
    words = _words().get(f"DuoLoRA{node_id}", {"inputs": {}, "outputs": {}})
    for each in arguments.get("inputs", ()):
        each.tooltip = each.tooltip or words["inputs"].get(each.id, {}).get("tooltip")
    for number, output in enumerate(arguments.get("outputs", ())):
        output.display_name = output.display_name or output.id
        output.tooltip = output.tooltip or words["outputs"].get(str(number), {}).get("tooltip")
    said = {name: words[name] for name in ("display_name", "description") if name in words}
    known = {key: value for key, value in {"category": CATEGORY, **said, **arguments}.items() if key in _KNOWN}
    return io.Schema(node_id=f"DuoLoRA{node_id}", **known)


@cache
def _words() -> dict[str, Any]:
    """{node id: its entry in nodeDefs.json}."""
    return json.loads(_WORDS.read_text(encoding="utf-8"))
