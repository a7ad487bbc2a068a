"""Vision models of the host's own classes, two layers small, with random weights."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch
from comfy_api.latest import io

from .tiny_clip import fill

COMMON = {"num_channels": 3, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "patch_size": 14}
CLIP = {"model_type": "clip_vision_model", "hidden_act": "gelu", "intermediate_size": 64, "image_size": 28}
KINDS: dict[str, dict[str, Any]] = {
    "bigG": COMMON | CLIP | {"projection_dim": 1280},
    "H": COMMON | CLIP | {"projection_dim": 1024},
    "siglip": COMMON | CLIP | {"model_type": "siglip_vision_model"},
    "dinov2": COMMON | {"model_type": "dinov2", "layer_norm_eps": 1e-6, "use_swiglu_ffn": False, "image_size": 518},
}


@functools.cache
def tiny_vision(kind: str) -> Any:
    """The vision model of this kind, built once per server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(KINDS[kind]), encoding="utf-8")
        vision = comfy.clip_vision.ClipVisionModel(str(path))
    fill(vision.model, torch.Generator().manual_seed(len(kind)))
    for name, parameter in vision.model.named_parameters():
        if "layer_scale" in name:  # at 0 a DINO would not look at its picture
            parameter.data.fill_(1.0)
    return vision


class TinyVision(io.ComfyNode):
    """Gives a CLIP_VISION whose embeddings have the width of a real one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A kind, one CLIP_VISION."""
        return io.Schema(
            node_id="DuoLoRATestTinyVision",
            display_name="Tiny vision (test)",
            category="DuoLoRA/test",
            inputs=[io.Combo.Input("kind", options=list(KINDS))],
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        """Build it, or take the one that was built before."""
        return io.NodeOutput(tiny_vision(kind))
