"""A training from pictures that has not ended, in a file: from it the same training goes on as if never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DuoLoraError
from ..kept_file import UNREADABLE, read_kept, write_kept
from .lora_in_training import LoraInTraining, Side
from .progress import Checkpoint, require_fitting

MOST_BYTES = 2**33
"""Both LoRAs of UnZipLoRA at rank 64 on SDXL are 2 GB with the optimiser's moments; above rank 250, none goes on."""


@dataclass(frozen=True)
class UnfinishedLoras:
    """What is kept of it.

    Attributes:
        losses: {term: one number for each step so far}
        pictures, class_pictures: the latents it trains on, (channels, h, w) each, float32
    """

    checkpoint: Checkpoint
    losses: Mapping[str, Sequence[float]]
    pictures: Sequence[Tensor]
    class_pictures: Sequence[Tensor]


def write_unfinished_loras(path: Path, kept: UnfinishedLoras, fingerprint: str) -> Path:
    """Writes it in place of an earlier state.

    Args:
        fingerprint: of everything that decides the training's course

    Raises:
        DuoLoraError: the file cannot be written.
    """
    tensors = {f"checkpoint/{name}": tensor for name, tensor in kept.checkpoint.tensors.items()}
    tensors["losses"] = torch.tensor([list(curve) for curve in kept.losses.values()], dtype=torch.float64)
    for kind, latents in (("pictures", kept.pictures), ("class", kept.class_pictures)):
        tensors |= {f"{kind}/{i}": latent.detach().to("cpu", torch.float32) for i, latent in enumerate(latents)}
    told = {
        "step": kept.checkpoint.step,
        "terms": list(kept.losses),
        "pictures": [len(kept.pictures), len(kept.class_pictures)],
    }
    return write_kept(path, tensors, told, fingerprint)


def read_unfinished_loras(
    path: Path, fingerprint: str, loras: Mapping[Side, LoraInTraining], steps: int
) -> UnfinishedLoras:
    """Reads it back, and believes nothing that it has not checked.

    Args:
        loras, steps: of the training that wants to go on

    Raises:
        DuoLoraError: the file is damaged, or of another training.
    """
    try:
        tensors, told = read_kept(path, fingerprint, MOST_BYTES)
        kept = _unfinished(tensors, told)
        require_fitting(kept.checkpoint, loras, steps)
    except (*UNREADABLE, DuoLoraError) as error:
        raise DuoLoraError(f"{path.name} is no training that can be gone on with ({error}).") from error
    return kept


def _unfinished(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> UnfinishedLoras:
    step, terms, counts = int(told["step"]), [str(term) for term in told["terms"]], [int(n) for n in told["pictures"]]
    kinds = [[tensors[f"{kind}/{i}"] for i in range(n)] for kind, n in zip(("pictures", "class"), counts, strict=True)]
    prefix = "checkpoint/"
    held = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    losses = tensors["losses"]
    if losses.dtype != torch.float64 or tuple(losses.shape) != (len(terms), step) or len(set(terms)) != len(terms):
        raise ValueError("its curves are not those of its steps")
    if step < 1 or not kinds[0] or len(tensors) != len(held) + sum(counts) + 1:
        raise ValueError("it is not whole")
    latents = [latent for kind in kinds for latent in kind]
    if any(latent.dtype != torch.float32 or latent.ndim != 3 for latent in latents):
        raise ValueError("its pictures are no latents")
    if not all(bool(tensor.isfinite().all()) for tensor in (losses, *latents)):
        raise ValueError("it holds numbers that are not finite")
    curves = dict(zip(terms, losses.tolist(), strict=True))
    return UnfinishedLoras(Checkpoint(step, held), curves, *kinds)
