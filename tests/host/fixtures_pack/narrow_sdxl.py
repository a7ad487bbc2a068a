"""The tiny checkpoint a fifth as wide, with random weights: too narrow for the host's detection, and much faster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

UNET_CONFIG: dict[str, Any] = json.loads((Path(__file__).parent / "unet.json").read_bytes())
UNET_CONFIG.update({"model_channels": 64, "num_head_channels": 32})


def narrow_model(seed: int) -> Any:
    """The MODEL, wrapped as the host wraps a checkpoint's."""
    config = comfy.supported_models.SDXL(UNET_CONFIG)
    config.unet_config["num_head_channels"] = UNET_CONFIG["num_head_channels"]  # the class sets SDXL's own
    config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model({}, device=offload)
    generator = torch.Generator().manual_seed(seed)
    for module in model.diffusion_model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                parameter.data.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                is_norm = isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm)
                parameter.data.fill_(float(is_norm and name == "weight"))
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)


class NarrowSDXL(io.ComfyNode):
    """In the place of a checkpoint loader; the VAE is the tiny checkpoint's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The outputs are in the order of Load Checkpoint; there is no CLIP."""
        return io.Schema(
            node_id="DuoLoRATestNarrowSDXL",
            display_name="Narrow SDXL (test)",
            category="DuoLoRA/test",
            inputs=[io.String.Input("ckpt_name"), io.Int.Input("seed", default=0, min=0, optional=True)],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, ckpt_name: str, seed: int = 0) -> io.NodeOutput:
        """Fill the network, read the VAE."""
        held = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name))
        prefix = "first_stage_model."
        vae = comfy.sd.VAE(sd={key[len(prefix) :]: value for key, value in held.items() if key.startswith(prefix)})
        return io.NodeOutput(narrow_model(seed), None, vae)
