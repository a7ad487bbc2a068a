"""A training that has not ended, in a file that is only ever read by whoever would write the same.

write_checkpoint(path, checkpoint, fingerprint)
checkpoint = read_checkpoint(path, fingerprint, start, steps)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DuoLoraError
from ..files.atomic_write import write_atomically
from ..files.safetensors_bytes import safetensors_chunks
from ..files.tensor_file import read_tensors
from ..files.tensor_header import Header
from .state import Checkpoint, require_fitting

FORMAT = 4
"""Rises whenever a training of equal settings would take another course, or a file is laid out differently."""

_KEY, _STATE, _LOSSES = "duolora_unfinished", "state/", "losses"
_MOST_BESIDE = 2**30
"""Bytes of pictures and curves: 60 training pictures of 1024 px are 16 MB."""


def write_checkpoint(path: Path, checkpoint: Checkpoint, fingerprint: str) -> Path:
    """Writes it in place of an earlier one.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    tensors = {f"{_STATE}{name}": tensor for name, tensor in checkpoint.tensors.items()}
    tensors[_LOSSES] = torch.tensor([list(curve) for curve in checkpoint.losses.values()], dtype=torch.float64)
    for whose, latents in checkpoint.pictures.items():
        tensors |= {f"{whose}/{i}": latent.detach().to("cpu", torch.float32) for i, latent in enumerate(latents)}
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "step": checkpoint.step,
        "scale_divisor": checkpoint.scale_divisor,
        "numbers": dict(checkpoint.numbers),
        "terms": list(checkpoint.losses),
        "pictures": {whose: len(latents) for whose, latents in checkpoint.pictures.items()},
    }
    metadata = {_KEY: json.dumps(header), "sha256": digest(tensors, header)}
    return write_atomically(path, safetensors_chunks(tensors, metadata), replace=True)


def read_checkpoint(path: Path, fingerprint: str, start: Checkpoint, steps: int) -> Checkpoint:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        start, steps: of the training that is to be resumed, see `require_fitting`

    Raises:
        DuoLoraError: the file is damaged, too large, or of another training.
    """
    most_bytes = 3 * sum(tensor.nbytes for tensor in start.tensors.values()) + _MOST_BESIDE

    def check(_name: str, header: Header) -> None:
        if header.size > most_bytes:
            raise ValueError("it is far too large")

    try:
        held = read_tensors(path, check)
        header: dict[str, Any] = json.loads(held.metadata[_KEY])
        if held.metadata["sha256"] != digest(held.tensors, header):
            raise ValueError("its content has changed since it was written")
        if (header["format"], header["fingerprint"]) != (FORMAT, fingerprint):
            raise ValueError("it is of another training, or of another version")
        checkpoint = _parsed(held.tensors, header)
        require_fitting(checkpoint, start, steps)
        return checkpoint
    except (DuoLoraError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DuoLoraError(f"{path.name} cannot be resumed from ({error}).") from error


def _parsed(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Checkpoint:
    step, terms = int(header["step"]), [str(term) for term in header["terms"]]
    numbers = {str(name): float(number) for name, number in header["numbers"].items()}
    counts = {str(whose): int(count) for whose, count in header["pictures"].items()}
    pictures = {whose: [tensors[f"{whose}/{i}"] for i in range(count)] for whose, count in counts.items()}
    state = {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
    losses = tensors[_LOSSES]
    whole = len(state) + sum(counts.values()) + 1
    if step < 1 or len(tensors) != whole or any(count < 1 for count in counts.values()):
        raise ValueError("it is not whole")
    if losses.dtype != torch.float64 or tuple(losses.shape) != (len(terms), step) or len(set(terms)) != len(terms):
        raise ValueError("its curves are not those of its steps")
    if any(each.dtype != torch.float32 or each.ndim != 3 for latents in pictures.values() for each in latents):
        raise ValueError("its pictures are not latents")
    beside = [losses, *(each for latents in pictures.values() for each in latents)]
    if not all(bool(tensor.isfinite().all()) for tensor in beside) or not all(map(math.isfinite, numbers.values())):
        raise ValueError("it holds numbers that are not finite")
    curves = dict(zip(terms, losses.tolist(), strict=True))
    return Checkpoint(step, state, int(header["scale_divisor"]), numbers, curves, pictures)


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """sha256 of all that the file says."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for chunk in safetensors_chunks(tensors, {}):
        found.update(chunk)
    return found.hexdigest()
