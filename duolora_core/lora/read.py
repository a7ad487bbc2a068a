"""Reading a LoRA: every key ends up in an adapter entry or in the list of what was skipped and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import LoraFileError
from ..files.sanitize import sanitize
from ..files.tensor_file import read_tensors
from ..files.tensor_header import Header, check_key
from .architecture import foreign_architecture
from .keys import Part, foreign_kind, split_key
from .parallel_layers import map_layers


@dataclass(frozen=True)
class Entry:
    """The adapter of one layer as the file holds it.

    Attributes:
        up: (out, rank) or (out, rank, 1, 1)
        down: (rank, in) or (rank, in, kh, kw); with `mid` (rank, in, 1, 1)
        mid: (rank, rank, kh, kw) of a Tucker-factored convolution (LoCon), else None
        alpha: the file's alpha; None means that the scale alpha / rank is 1
    """

    up: Tensor
    down: Tensor
    mid: Tensor | None
    alpha: float | None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as read, its layers still spelled as in the file.

    Attributes:
        name: what messages call it, usually the file name
        sha256: of the file's bytes; of names and values for a LoRA that never was a file
        entries: {spelled layer: Entry}
        offsets: {(spelled layer, "weight" | "bias"): (channels,)}, the 1-D changes that core Train LoRA writes
        skipped: {key: reason}
        metadata: the file's own metadata
    """

    name: str
    sha256: str
    entries: Mapping[str, Entry]
    offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def read_lora(path: Path) -> LoraFile:
    """Reads a safetensors LoRA in any of the formats met in the wild.

    Raises:
        LoraFileError: the file is missing, damaged, not a safetensors file, not a plain LoRA, or for another model.
    """
    if path.suffix.lower() != ".safetensors":
        raise LoraFileError(f"{sanitize(path.name)}: only .safetensors LoRAs are read; convert this file first.")
    held = read_tensors(path, _expect_lora_keys)
    return lora_from_tensors(held.tensors, held.name, held.sha256, held.metadata)


def _expect_lora_keys(name: str, header: Header) -> None:
    """Refuses what is plainly no LoRA, such as a checkpoint of many GB, before its tensors are read."""
    if not any(split_key(key) or foreign_kind(key) for key in header.slots):
        raise _no_lora(name, len(header.slots))


def _no_lora(name: str, keys: int) -> LoraFileError:
    return LoraFileError(f"{name} holds no LoRA weights (read {keys} keys). Is it a checkpoint or an embedding?")


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and values, in whatever order they are given."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def lora_from_tensors(
    tensors: Mapping[str, Tensor], name: str, sha256: str = "", metadata: Mapping[str, str] | None = None
) -> LoraFile:
    """The same for a dictionary of tensors, such as the LORA_MODEL that ComfyUI's own Train LoRA gives.

    Raises:
        LoraFileError: as for `read_lora`.
    """
    parts: dict[str, dict[Part, tuple[str, Tensor]]] = {}
    skipped: dict[str, str] = {}
    foreign: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        check_key(key, name)
        other = foreign_kind(key)
        split = split_key(key)
        if other is not None:
            foreign.setdefault(other[1], set()).add(other[0])
        elif split is None:
            skipped[key] = "not a LoRA key"
        else:
            layer, part = split
            twin = parts.setdefault(layer, {}).get(part)
            if twin is not None:
                raise LoraFileError(f"{name}: layer {layer} has its {part} part twice ({twin[0]} and {key}).")
            parts[layer][part] = (key, tensor)

    dense = {layer for layer, held in parts.items() if "weight_offset" in held and held["weight_offset"][1].ndim > 1}
    if dense:
        foreign["full weight difference"] = dense
    _refuse_foreign(foreign, name)

    complete: dict[str, Mapping[Part, tuple[str, Tensor]]] = {}
    offsets: dict[tuple[str, str], Tensor] = {}
    for layer, held in parts.items():
        for part, place in (("weight_offset", "weight"), ("bias_offset", "bias")):
            if part in held:
                offsets[layer, place] = _finite(*held[part], name)
        if "up" in held and "down" in held:
            complete[layer] = held
        elif "up" in held or "down" in held:
            have, lack = ("up", "down") if "up" in held else ("down", "up")
            raise LoraFileError(
                f"{name}: layer {layer} has its {have} weight ({held[have][0]}) but no {lack} weight. "
                "The file is incomplete; download it again or ask its author."
            )
        else:
            skipped |= {held[part][0]: "no up and down weight beside it" for part in ("alpha", "mid") if part in held}
    if not complete:
        raise _no_lora(name, len(tensors))
    entries = map_layers(lambda layer, held: _entry(layer, held, name), complete)
    architecture = foreign_architecture({layer: entry.down for layer, entry in entries.items()})
    if architecture:
        raise LoraFileError(
            f"{name} looks like a LoRA for {architecture}. DuoLoRA merges LoRAs of the SDXL family; choose one "
            "made for SDXL, Pony, Illustrious, NoobAI, SSD-1B or Segmind-Vega."
        )
    return LoraFile(name, sha256 or tensors_sha256(tensors), entries, offsets, skipped, dict(metadata or {}))


def _entry(layer: str, held: Mapping[Part, tuple[str, Tensor]], name: str) -> Entry:
    up, down = _finite(*held["up"], name), _finite(*held["down"], name)
    mid = _finite(*held["mid"], name) if "mid" in held else None
    shapes = f"up {tuple(up.shape)}, down {tuple(down.shape)}" + (
        f", mid {tuple(mid.shape)}" if mid is not None else ""
    )
    fits = up.ndim in (2, 4) and down.ndim in (2, 4)
    if mid is None:
        fits = fits and up.shape[1] == down.shape[0]
    else:
        fits = (
            fits and mid.ndim == 4 and (up.shape[1], down.shape[0]) == mid.shape[:2] and down.shape[2:] in ((), (1, 1))
        )
    empty = any(0 in tensor.shape for tensor in (up, down, mid) if tensor is not None)
    if not fits or empty or (up.ndim == 4 and up.shape[2:] != (1, 1)):
        raise LoraFileError(
            f"{name}: the weights of layer {layer} do not fit each other ({shapes}). The file is damaged."
        )
    alpha = None
    if "alpha" in held:
        key, tensor = held["alpha"]
        if tensor.numel() != 1:
            raise LoraFileError(f"{name}: {key} should be one number but has shape {tuple(tensor.shape)}.")
        alpha = float(_finite(key, tensor.to(torch.float32), name))
    return Entry(up, down, mid, alpha)


def _finite(key: str, tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point():
        raise LoraFileError(
            f"{name}: {key} holds {str(tensor.dtype).removeprefix('torch.')} numbers, which are not weights without "
            "the scale of their quantisation. Use the LoRA in fp16, bf16 or fp32."
        )
    if not all_finite(tensor):
        raise LoraFileError(f"{name}: {key} contains NaN or infinity. The LoRA is broken; use an earlier save of it.")
    return tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite in float32, by one sum: several times faster than a mask of all entries."""
    return bool(tensor.to(torch.float32).sum(dtype=torch.float64).isfinite())  # finite float32 cannot overflow it


def _refuse_foreign(foreign: Mapping[str, set[str]], name: str) -> None:
    if not foreign:
        return
    kinds = ", ".join(f"{kind} in {len(layers)} layers (such as {min(layers)})" for kind, layers in foreign.items())
    raise LoraFileError(
        f"{name} is not a plain LoRA: it holds {kinds}. DuoLoRA merges LoRA and LoCon files so far; "
        "extract a plain LoRA from it (for instance with kohya's or LyCORIS' extraction script) and use that."
    )
