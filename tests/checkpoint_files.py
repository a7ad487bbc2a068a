"""Files of unfinished trainings that say something else than they were written with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from duolora_core.checkpoint.file import digest


def lie(path: Path, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> None:
    """Writes the file again with other tensors and other words, and a checksum that is right."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["duolora_unfinished"]) | says
    held = load_file(path) | dict(tensors)
    save_file(held, path, {"duolora_unfinished": json.dumps(header), "sha256": digest(held, header)})
