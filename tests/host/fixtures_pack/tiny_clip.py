"""A text encoder of SDXL's two classes and widths with three random layers each."""

from __future__ import annotations

import functools

import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models_base
import torch
from comfy_api.latest import io

LAYERS = 3
MODEL_OPTIONS = {
    "clip_l_model_config": {"num_hidden_layers": LAYERS, "intermediate_size": 1024},
    "clip_g_model_config": {"num_hidden_layers": LAYERS, "intermediate_size": 1024},
    "dtype": torch.float32,
}


def fill(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Random weights: unit variance for embeddings, 1/sqrt(fan in) for linears; norms are the identity."""
    for name, parameter in module.named_parameters():
        if "embedding" in name:
            parameter.data.normal_(std=1.0 if "token" in name else 0.1, generator=generator)
        elif parameter.ndim >= 2:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
        else:
            parameter.data.fill_(float("norm" in name and name.endswith("weight")))


@functools.cache
def tiny_clip(seed: int) -> comfy.sd.CLIP:
    """The text encoder for this seed, built once per server (most of its size is the token table)."""
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    clip = comfy.sd.CLIP(target, parameters=1, model_options=MODEL_OPTIONS)
    fill(clip.cond_stage_model, torch.Generator().manual_seed(seed))
    return clip


class TinyCLIP(io.ComfyNode):
    """Gives a text encoder whose contexts have SDXL's widths (2048 and, pooled, 1280)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs but a seed, one CLIP."""
        return io.Schema(
            node_id="DuoLoRATestTinyCLIP",
            display_name="Tiny CLIP (test)",
            category="DuoLoRA/test",
            inputs=[io.Int.Input("seed", default=0, min=0, optional=True)],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, seed: int = 0) -> io.NodeOutput:
        """Build it, or take the one that was built before."""
        return io.NodeOutput(tiny_clip(seed).clone())
