"""Reading a LoRA: every key ends up in an adapter entry or in the list of what was skipped and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LoraFileError
from ..files.sanitize import sanitize
from ..files.tensor_file import read_tensors
from ..files.tensor_header import Header, check_key
from .adapter_parts import OFFSETS, Parts, adapter_of, alpha_of, offsets_of
from .adapters import Adapter
from .architecture import foreign_architecture
from .beside import config_beside
from .keys import bundled_embedding, foreign_kind, split_key, uncompiled
from .parallel_layers import map_layers
from .scale import lora_scales


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as read, its layers still spelled as in the file.

    Attributes:
        name: what messages call it, usually the file name
        sha256: of the file's bytes; of names and values for a LoRA that never was a file
        entries: {spelled layer: Adapter}
        offsets: {(spelled layer, "weight" | "bias"): (channels,)}, the 1-D changes that core Train LoRA writes
        skipped: {key: reason}
        metadata: the file's own metadata
        notes: how the scale was found, for the artist
        beside: the content of the `adapter_config.json` that belongs to the file, if there is one
    """

    name: str
    sha256: str
    entries: Mapping[str, Adapter]
    offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Any] | None = None

    @property
    def kinds(self) -> Counter[str]:
        """{kind of adapter: layers}."""
        return Counter(entry.kind for entry in self.entries.values())


def read_lora(path: Path) -> LoraFile:
    """Reads a safetensors LoRA in any of the formats met in the wild.

    Raises:
        LoraFileError: the file is missing, damaged, not a safetensors file, not a plain LoRA, or for another model.
    """
    if path.suffix.lower() != ".safetensors":
        raise LoraFileError(f"{sanitize(path.name)}: only .safetensors LoRAs are read; convert this file first.")
    held = read_tensors(path, _expect_lora_keys)
    return lora_from_tensors(held.tensors, held.name, held.sha256, held.metadata, config_beside(path))


def _expect_lora_keys(name: str, header: Header) -> None:
    """Refuses what is plainly no LoRA, such as a checkpoint of many GB, before its tensors are read."""
    if not any(split_key(key) or foreign_kind(key) for key in header.entries):
        raise _no_lora(name, header.entries)


def _no_lora(name: str, keys: Collection[str]) -> LoraFileError:
    checkpoint = any(key.startswith(("model.diffusion_model.", "first_stage_model.", "conditioner.")) for key in keys)
    embedding = any(key in ("clip_l", "clip_g", "emb_params", "string_to_param") for key in keys)
    what = "It is a checkpoint: load it with Load Checkpoint." if checkpoint else "Choose a LoRA file."
    if any(key == "lora_controlnet" or key.startswith("input_hint_block.") for key in keys):
        what = "It is a control LoRA: load it with Load ControlNet Model."
    if embedding:
        what = "It is an embedding: put it into the embeddings folder and write its name into a prompt."
    return LoraFileError(f"{name} holds no LoRA weights (read {len(keys)} keys). {what}")


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and values, in whatever order they are given."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def lora_from_tensors(
    tensors: Mapping[str, Tensor],
    name: str,
    sha256: str = "",
    metadata: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> LoraFile:
    """The same for a dictionary of tensors, such as the LORA_MODEL that ComfyUI's own Train LoRA gives.

    Args:
        beside: the content of an `adapter_config.json` that belongs to it

    Raises:
        LoraFileError: as for `read_lora`.
    """
    layers, skipped = _by_layer(tensors, name)
    ranks = {layer: parts["down"][1].shape[0] for layer, parts in layers.items() if "down" in parts}
    ranks |= {layer: parts["hada_w1_b"][1].shape[0] for layer, parts in layers.items() if "hada_w1_b" in parts}
    ranks |= {layer: parts["lokr_w2_b"][1].shape[0] for layer, parts in layers.items() if "lokr_w2_b" in parts}
    own = {layer: alpha_of(parts, name) for layer, parts in layers.items() if "alpha" in parts}
    scales = lora_scales(metadata or {}, beside, ranks, own, name)
    read = map_layers(
        lambda layer, parts: adapter_of(layer, parts, name, own.get(layer, scales.alphas.get(layer))), layers
    )
    entries = {layer: adapter for layer, adapter in read.items() if adapter is not None}
    offsets: dict[tuple[str, str], Tensor] = {}
    for layer, parts in layers.items():
        offsets |= {
            (layer, what): offset for what, offset in offsets_of(layer, parts, entries.get(layer), name).items()
        }
        if layer not in entries:
            skipped |= {parts[part][0]: "no weight beside it" for part in parts if part not in OFFSETS}
    if not entries:
        raise _no_lora(name, tensors)
    architecture = foreign_architecture({layer: _inputs(parts) for layer, parts in layers.items()})
    if architecture:
        raise LoraFileError(
            f"{name} is a LoRA for {architecture}. DuoLoRA merges LoRAs of the SDXL family; choose one "
            "made for SDXL, Pony, Illustrious, NoobAI, SSD-1B or Segmind-Vega."
        )
    digest = sha256 or tensors_sha256(tensors)
    return LoraFile(name, digest, entries, offsets, skipped, dict(metadata or {}), scales.notes, beside)


def _by_layer(
    tensors: Mapping[str, Tensor], name: str
) -> tuple[dict[str, dict[str, tuple[str, Tensor]]], dict[str, str]]:
    """{spelled layer: its parts} and {key: why it is left out} of everything that a file holds."""
    layers: dict[str, dict[str, tuple[str, Tensor]]] = {}
    skipped: dict[str, str] = {}
    foreign: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        check_key(key, name)
        plain = uncompiled(key)
        other, split = foreign_kind(plain), split_key(plain)
        if other is not None:
            foreign.setdefault(other[1], set()).add(other[0])
        elif split is None:
            word = bundled_embedding(key)
            skipped[key] = (
                f"a bundled embedding, which no LoRA file of ours can hold: the trigger word '{word}' is lost"
                if word
                else "not a LoRA key"
            )
        else:
            layer, part = split
            twin = layers.setdefault(layer, {}).get(part)
            if twin is not None:
                raise LoraFileError(f"{name}: layer {layer} has its {part} part twice ({twin[0]} and {key}).")
            layers[layer][part] = (key, tensor)
    _refuse_foreign(foreign, name)
    for layer, parts in layers.items():  # LyCORIS' (IA)³ calls its scales as a checkpoint calls its weights
        key = f"{layer}.weight"
        if "on_input" in parts and key in skipped:
            del skipped[key]
            parts["ia3_weight"] = (key, tensors[key])
    return layers, skipped


def _inputs(parts: Parts) -> int | None:
    """Columns of the weight that a layer's parts change, where a single part tells."""
    return next((parts[part][1].shape[1] for part in ("down", "hada_w1_b") if part in parts), None)


def _refuse_foreign(foreign: Mapping[str, set[str]], name: str) -> None:
    if not foreign:
        return
    kinds = ", ".join(f"{kind} in {len(layers)} layers (such as {min(layers)})" for kind, layers in foreign.items())
    raise LoraFileError(
        f"{name} holds {kinds}, which cannot be merged. Extract a plain LoRA from it (for instance with ComfyUI's "
        "Extract and Save LoRA) and use that."
    )
