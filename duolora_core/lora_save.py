"""Writing: an ordinary kohya-format LoRA with its metadata and recipe, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .each_layer import each_layer
from .errors import LoraFileError
from .files.safetensors_bytes import safetensors_chunks
from .files.whole_file import write_whole
from .lora_file import all_finite
from .low_rank import LowRank
from .merged import FoldedLora

VERSION = "0.1.0"


@dataclass(frozen=True)
class FileInfo:
    """What the metadata of a saved LoRA says beside the recipe. No date: the same merge saved again is the same file.

    Attributes:
        title: shown by LoRA browsers
        trigger_phrase: the prompt with which both concepts appear
        prediction: "eps" or "v", that of the model on which it was merged
        merged_from: the names of the source files
    """

    title: str
    trigger_phrase: str = ""
    prediction: str = "eps"
    merged_from: tuple[str, ...] = ()


def kohya_state_dict(lora: FoldedLora, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """{`lora_unet_….lora_down.weight`: tensor}, as ComfyUI, A1111, Forge and diffusers read it.

    All layers carry one alpha, the largest rank, and a layer of smaller rank has its scale rank / alpha multiplied into
    `down`: diffusers drops alphas that differ by layer.

    Raises:
        LoraFileError: a value is too large for `dtype`.
    """
    factors = {key: (low_rank.up, low_rank.down) for key, low_rank in lora.text.items()}
    for name, low_rank in lora.layers.items():
        key = "lora_unet_" + name.replace(".", "_")
        inputs, *spatial = lora.shapes[name][1:]
        up = low_rank.up.reshape(*low_rank.up.shape, *[1] * len(spatial))
        factors[key] = (up, low_rank.down.reshape(low_rank.rank, inputs, *spatial))
    alpha = _largest_rank(lora)
    encoded = each_layer(lambda key, layer: _encoded(key, *layer, alpha, dtype), factors)
    tensors = {key: tensor for layer in encoded.values() for key, tensor in layer.items()}
    for (name, what), offset in lora.offsets.items():
        key = f"lora_unet_{name.replace('.', '_')}.{'diff' if what == 'weight' else 'diff_b'}"
        tensors[key] = _cast(key, offset, dtype)
    return tensors


def metadata(lora: FoldedLora, info: FileInfo, recipe: Mapping[str, Any]) -> dict[str, str]:
    """kohya's `ss_*`, the model spec's `modelspec.*` and our whole recipe as JSON under `duolora_recipe`."""
    ranks = {low_rank.rank for low_rank in lora.layers.values()}
    dim = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    values = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": dim,
        "ss_network_alpha": str(_largest_rank(lora)),
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_output_name": info.title,
        "ss_training_comment": "merged by DuoLoRA",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": info.title,
        "modelspec.trigger_phrase": info.trigger_phrase,
        "modelspec.prediction_type": "v" if info.prediction == "v" else "epsilon",
        "modelspec.merged_from": ", ".join(info.merged_from),
        "duolora_version": VERSION,
        "duolora_recipe": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
    }
    return {key: value for key, value in values.items() if value}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, str]) -> Path:
    """Writes a new file whole; an existing one is never replaced. Equal contents give equal bytes.

    Raises:
        FileTakenError: the file already exists.
        DuoLoraError: the folder cannot be written to.
    """
    return write_whole(path, safetensors_chunks(tensors, values))


def _largest_rank(lora: FoldedLora) -> int:
    return max((low_rank.rank for low_rank in (*lora.layers.values(), *lora.text.values())), default=0)


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
