"""One file to read, with what it must change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from wild_loras.layers import Family


@dataclass(frozen=True)
class Sample:
    """A LoRA file.

    Attributes:
        kind: of the table that the run prints
        path: of the file, with what belongs beside it
        changes: {layer as a placed concept calls it: ΔW}, from the trainer's own code or a slow formula
        offsets: {(layer, "weight" | "bias"): (channels,)}
        in_core: whether ComfyUI's own loader makes the same of it; else why it is known to make something else of it
    """

    kind: str
    family: Family
    path: Path
    changes: Mapping[str, Tensor]
    offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    in_core: bool | str = True


def written(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """The tensors as a file, in a folder of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: tensor.detach().contiguous() for key, tensor in tensors.items()}, path, dict(metadata or {}) or None
    )
    return path
