"""Runs inside a host's python: prints the host's own table of LoRA keys for SDXL, as JSON.

python keys_inside.py --host PATH

{"unet": {key: the UNet layer that core changes by it}, "text": {key: the text-encoder layer}}, a bias with ".bias".
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path

import inside_host  # beside this file, which is a script


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    inside_host.enter(parser.parse_args().host)
    sys.stdout.write("\n" + json.dumps({"unet": unet_keys(), "text": text_keys()}) + "\n")


def unet_keys() -> dict[str, str]:
    import comfy.lora
    import comfy.ops

    network = inside_host.unet("SDXL", comfy.ops.disable_weight_init)
    weights = {f"diffusion_model.{name}": each for name, each in network.state_dict().items()}
    model = types.SimpleNamespace(
        state_dict=lambda: weights, model_config=types.SimpleNamespace(unet_config=inside_host.config_of("SDXL"))
    )
    found = comfy.lora.model_lora_keys_unet(model, {})
    return {
        key: weight.removeprefix("diffusion_model.").removesuffix(".weight")
        for key, weight in found.items()
        if weight in weights
    }


def text_keys() -> dict[str, str]:
    import comfy.lora
    import comfy.sdxl_clip
    import torch

    with torch.device("meta"):
        encoders = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float32)
    found = comfy.lora.model_lora_keys_clip(encoders, {})
    return {key: weight.removesuffix(".weight") for key, weight in found.items()}


if __name__ == "__main__":
    main()
