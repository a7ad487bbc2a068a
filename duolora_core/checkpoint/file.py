"""A training that has not ended, in a file that is only ever read by whoever would write the same.

    write_checkpoint(path, CheckpointData(step, losses, pictures, state), fingerprint)
    state = read_checkpoint(path, fingerprint, most_bytes, parse)

`state` is what each kind of training has of its own: `merge_file` for merges, `train_lora.checkpoint_file` for LoRAs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import DuoLoraError
from ..files.atomic_write import write_atomically
from ..files.safetensors_bytes import safetensors_chunks
from ..files.tensor_file import read_tensors
from ..files.tensor_header import Header

FORMAT = 3
"""Rises whenever a training of equal settings would take another course, or a file is laid out differently."""

_KEY, _STATE = "duolora_unfinished", "state"

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class CheckpointData:
    """What such a file holds.

    Attributes:
        step: the steps behind it
        losses: {term: one number for each step so far}
        pictures: {whose: the latents it trains on, (channels, h, w) each, float32}; whoever samples them pays as much
            for them as for the training
        state: every other tensor
    """

    step: int
    losses: Mapping[str, Sequence[float]]
    pictures: Mapping[str, Sequence[Tensor]]
    state: Mapping[str, Tensor]


def write_checkpoint(path: Path, data: CheckpointData, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    tensors = {f"{_STATE}/{name}": tensor for name, tensor in data.state.items()}
    tensors["losses"] = torch.tensor([list(curve) for curve in data.losses.values()], dtype=torch.float64)
    for whose, latents in data.pictures.items():
        tensors |= {f"{whose}/{i}": latent.detach().to("cpu", torch.float32) for i, latent in enumerate(latents)}
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "step": data.step,
        "terms": list(data.losses),
        "pictures": {whose: len(latents) for whose, latents in data.pictures.items()},
    }
    metadata = {_KEY: json.dumps(header), "sha256": digest(tensors, header)}
    return write_atomically(path, safetensors_chunks(tensors, metadata), replace=True)


def read_checkpoint(path: Path, fingerprint: str, most_bytes: int, parse: Callable[[CheckpointData], Parsed]) -> Parsed:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        parse: what the caller makes of it; it may raise what a wrong file makes it raise

    Raises:
        DuoLoraError: the file is damaged, too large, or of another training.
    """

    def check(_name: str, header: Header) -> None:
        if header.size > most_bytes:
            raise ValueError("it is far too large")

    try:
        held = read_tensors(path, check)
        header: dict[str, Any] = json.loads(held.metadata[_KEY])
        if held.metadata["sha256"] != digest(held.tensors, header):
            raise ValueError("its content has changed since it was written")
        if (header["format"], header["fingerprint"]) != (FORMAT, fingerprint):
            raise ValueError("it is of another training")
        return parse(_checked(held.tensors, header))
    except (DuoLoraError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DuoLoraError(f"{path.name} cannot be resumed from ({error}).") from error


def _checked(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> CheckpointData:
    step, terms = int(header["step"]), [str(term) for term in header["terms"]]
    counts = {str(whose): int(count) for whose, count in header["pictures"].items()}
    pictures = {whose: [tensors[f"{whose}/{i}"] for i in range(count)] for whose, count in counts.items()}
    prefix = f"{_STATE}/"
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    losses = tensors["losses"]
    if step < 1 or len(tensors) != len(state) + sum(counts.values()) + 1:
        raise ValueError("it is not whole")
    if losses.dtype != torch.float64 or tuple(losses.shape) != (len(terms), step) or len(set(terms)) != len(terms):
        raise ValueError("its curves are not those of its steps")
    if any(each.dtype != torch.float32 or each.ndim != 3 for latents in pictures.values() for each in latents):
        raise ValueError("its pictures are not latents")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("it holds numbers that are not finite")
    return CheckpointData(step, dict(zip(terms, losses.tolist(), strict=True)), pictures, state)


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """sha256 of all that the file says."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for chunk in safetensors_chunks(tensors, {}):
        found.update(chunk)
    return found.hexdigest()
