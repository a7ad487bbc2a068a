"""Builds a checkpoint of SDXL's true structure and two LoRAs of real size, all random, with the host's own classes.

Run by a host's python, never by the test process:

    <host python> sdxl_files.py --host <ComfyUI folder> --out FOLDER --model SDXL

Names and shapes come from the host's modules on the meta device. Values are made and written tensor by tensor, so that
7 GB on disk need a few hundred MB of memory. Every linear and convolution has weights of standard deviation
1/sqrt(fan in), norms are the identity and biases 0, so activations stay finite however deep the network is.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "host"))

import inside_host  # beside the host's other scripts

RANKS = {"content": 64, "style": 32}
GAIN = 0.15
"""Of a LoRA's change over the layer's own output: about what a well trained one has."""
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
_TRANSFORMER = re.compile(r"\.(transformer_blocks\.\d+\..+|proj_in|proj_out)$")
_TEXT = re.compile(r"text_model\.encoder\.layers\.\d+\.(self_attn\.\w+_proj|mlp\.fc[12])$")

Shape = tuple[int, ...]


def main() -> None:
    """Parse the arguments, build, write."""
    parser = argparse.ArgumentParser(description="Build an SDXL checkpoint of real size and two LoRAs.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    parser.add_argument("--model", choices=list(inside_host.DEPTHS), default="SDXL")
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    import comfy.ops

    unet = inside_host.unet(wanted.model, comfy.ops.disable_weight_init)
    encoders = text_encoders()
    generator = torch.Generator().manual_seed(0)
    write(wanted.out / "checkpoint.safetensors", checkpoint(unet, encoders), generator)
    layers = lora_layers(unet, encoders)
    for role, rank in RANKS.items():
        write(wanted.out / f"{role}.safetensors", lora(layers, rank), generator)


def text_encoders() -> Any:
    """Both of SDXL's, on the meta device."""
    import comfy.sdxl_clip

    return comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16)


def checkpoint(unet: Any, encoders: Any) -> dict[str, tuple[Shape, float | None]]:
    """{key: (shape, standard deviation)} of the whole file; None for ones."""
    import comfy.supported_models
    from comfy.ldm.models.autoencoder import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    config = comfy.supported_models.SDXL({})
    found = {f"model.diffusion_model.{key}": tuple(value.shape) for key, value in unet.state_dict().items()}
    saved = config.process_clip_state_dict_for_saving(encoders.state_dict())
    found |= {key: tuple(value.shape) for key, value in saved.items() if not key.endswith("position_ids")}
    found |= {f"first_stage_model.{key}": tuple(value.shape) for key, value in vae.state_dict().items()}
    return {key: (shape, spread(key, shape)) for key, shape in found.items()}


def spread(key: str, shape: Shape) -> float | None:
    """The standard deviation of a tensor's values: see the module; None for a norm's weight, which is one."""
    if "embedding" in key:
        return 1.0 if "token" in key else 0.1
    if len(shape) > 1:
        return math.prod(shape[1:]) ** -0.5
    return None if key.endswith("weight") or key.endswith("logit_scale") else 0.0


def lora_layers(unet: Any, encoders: Any) -> dict[str, Shape]:
    """{kohya's name: weight shape} of every linear in the UNet's transformers and in both text encoders."""
    found = {
        f"lora_unet_{name.replace('.', '_')}": tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear) and _TRANSFORMER.search(name)
    }
    for number, encoder in ((1, encoders.clip_l), (2, encoders.clip_g)):
        for name, module in encoder.transformer.named_modules():
            if _TEXT.search(name):
                found[f"lora_te{number}_{name.replace('.', '_')}"] = tuple(module.weight.shape)
    return found


def lora(layers: Mapping[str, Shape], rank: int) -> dict[str, tuple[Shape, float | None]]:
    """As kohya's trainer writes it; alpha is 1 and its scale, 1 / rank, made up for in the factors."""
    found: dict[str, tuple[Shape, float | None]] = {}
    for name, (outputs, inputs) in layers.items():
        found[f"{name}.alpha"] = (), None
        found[f"{name}.lora_down.weight"] = (rank, inputs), inputs**-0.5
        found[f"{name}.lora_up.weight"] = (outputs, rank), GAIN * rank**0.5
    return found


def write(path: Path, tensors: Mapping[str, tuple[Shape, float | None]], generator: torch.Generator) -> None:
    """A safetensors file in fp16, tensor by tensor."""
    header: dict[str, Any] = {}
    end = 0
    for key, (shape, _) in tensors.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in numbers(tensors, generator):
            file.write(values.numpy().data)


def numbers(tensors: Mapping[str, tuple[Shape, float | None]], generator: torch.Generator) -> Iterator[Tensor]:
    """The values of each tensor, flat, in fp16."""
    for shape, deviation in tensors.values():
        count = math.prod(shape)
        if deviation:
            yield torch.randn(count, generator=generator).mul_(deviation).half()
        else:
            yield torch.full((count,), 1.0 if deviation is None else 0.0, dtype=torch.float16)


if __name__ == "__main__":
    main()
