"""Writing: an ordinary kohya-format LoRA with its metadata and recipe, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import LoraFileError
from ..files.atomic_write import write_atomically
from ..files.safetensors_bytes import safetensors_chunks
from .adapter_parts import all_finite
from .folded import FoldedLora
from .low_rank import LowRank
from .metadata import largest_rank
from .parallel_layers import map_layers


def without_what_diffusers_refuses(lora: FoldedLora) -> tuple[FoldedLora, int]:
    """The LoRA without changes of norms, biases and text embeddings, and how many of them there were.

    diffusers raises an error for the whole file where it meets a `.diff` or `.diff_b`, and finds nothing at all in one
    with a `text_encoders.…` key (tried with 0.39 to 0.42).
    """
    text = {name: low_rank for name, low_rank in lora.text.items() if name.startswith("lora_")}
    left_out = len(lora.text) - len(text) + len(lora.offsets) + len(lora.text_offsets)
    return replace(lora, text=text, offsets={}, text_offsets={}), left_out


def kohya_state_dict(lora: FoldedLora, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """{`lora_unet_….lora_down.weight`: tensor}, as ComfyUI, A1111, Forge and diffusers read it.

    All layers carry one alpha, the largest rank, and a layer of smaller rank has its scale rank / alpha multiplied into
    `down`: diffusers drops alphas that differ by layer. Text-encoder layers that kohya has no name for (embeddings,
    norms) keep ComfyUI's own, `text_encoders.clip_l.transformer.…`.

    Raises:
        LoraFileError: a value is too large for `dtype`.
    """
    factors = {key: (low_rank.up, low_rank.down) for key, low_rank in lora.text.items()}
    for name, low_rank in lora.layers.items():
        key = "lora_unet_" + name.replace(".", "_")
        inputs, *spatial = lora.shapes[name][1:]
        up = low_rank.up.reshape(*low_rank.up.shape, *[1] * len(spatial))
        factors[key] = (up, low_rank.down.reshape(low_rank.rank, inputs, *spatial))
    alpha = largest_rank(lora)
    encoded = map_layers(lambda key, layer: _encoded(key, *layer, alpha, dtype), factors)
    tensors = {key: tensor for layer in encoded.values() for key, tensor in layer.items()}
    offsets = {(f"lora_unet_{name.replace('.', '_')}", what): offset for (name, what), offset in lora.offsets.items()}
    for (layer, what), offset in (*offsets.items(), *lora.text_offsets.items()):
        key = f"{layer}.{'diff' if what == 'weight' else 'diff_b'}"
        tensors[key] = _cast(key, offset, dtype)
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, str]) -> Path:
    """Writes a new file whole; an existing one is never replaced. Equal contents give equal bytes.

    Raises:
        FileTakenError: the file already exists.
        DuoLoraError: the folder cannot be written to.
    """
    return write_atomically(path, safetensors_chunks(tensors, values))


def _encoded(key: str, up: Tensor, down: Tensor, alpha: int, dtype: torch.dtype) -> dict[str, Tensor]:
    balanced = LowRank(up.flatten(1), down.flatten(1)).balanced()  # gates and strengths are all in `down`
    up, down = balanced.up.reshape(up.shape), balanced.down.reshape(down.shape)
    return {
        f"{key}.lora_up.weight": _cast(key, up, dtype),
        f"{key}.lora_down.weight": _cast(key, down * (down.shape[0] / alpha), dtype),
        f"{key}.alpha": torch.tensor(float(alpha)),  # float32: bf16 rounds ranks above 256
    }


def _cast(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype).contiguous()
    if not all_finite(cast):
        raise LoraFileError(f"{key} has values too large for {dtype}; save in fp32 or bf16, or lower the strength.")
    return cast
