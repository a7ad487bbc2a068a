"""A few layers of every kind of the models of the SDXL family, with weights, and modules that trainers take hold of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, UNet, layer_shapes
from duolora_core import UNetLayout, layout_from_shapes

FAMILIES = {"SDXL": SDXL, "SSD_1B": SSD_1B, "SEGMIND_VEGA": SEGMIND_VEGA}

ATTENTION = (
    "input_blocks.4.1.transformer_blocks.0.attn1.to_q",  # (640, 640)
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k",  # (640, 2048)
    "output_blocks.0.1.transformer_blocks.1.attn1.to_out.0",  # (1280, 1280)
)
CONVOLUTIONS = ("input_blocks.1.0.in_layers.2", "input_blocks.3.0.op", "output_blocks.8.0.skip_connection")
CONV_OUT = "out.2"  # (4, 320, 3, 3)
EMBEDDING = "time_embed.0"  # (1280, 320)
NORM = "input_blocks.4.1.transformer_blocks.0.norm1"  # (640,)

_CLIP = {"te1": "clip_l", "te2": "clip_g"}
TEXT = {
    "te1.text_model.encoder.layers.3.self_attn.q_proj": (768, 768),
    "te2.text_model.encoder.layers.5.self_attn.out_proj": (1280, 1280),
    "te1.text_model.encoder.layers.0.mlp.fc1": (3072, 768),
}
TOKENS = "te1.text_model.embeddings.token_embedding"
TEXT_NORM = "te2.text_model.encoder.layers.5.layer_norm1"


def generic(name: str) -> str:
    """ComfyUI's own name of a text-encoder layer: `text_encoders.clip_l.transformer.text_model.…`."""
    encoder, _, layer = name.partition(".")
    return f"text_encoders.{_CLIP[encoder]}.transformer.{layer}"


def placed_name(name: str) -> str:
    """What a placed concept calls a layer; text encoders' as kohya does where kohya has a name."""
    if not name.startswith(("te1.", "te2.")):
        return name
    return generic(name) if name in (TOKENS, TEXT_NORM) else "lora_" + name.replace(".", "_")


@dataclass(frozen=True)
class Family:
    """One model of the family: its layout, and the weights of the layers named above, by the name a concept has."""

    name: str
    layout: UNetLayout
    weights: Mapping[str, Tensor]

    def weight(self, layer: str) -> Tensor | None:
        if layer.endswith(".bias"):
            return torch.ones(self.weights[layer.removesuffix(".bias")].shape[0])
        return self.weights.get(layer)

    def diffusers(self, layer: str) -> str:
        return self.layout.layers[layer].diffusers

    def module(self, layer: str) -> nn.Module:
        """A linear layer or convolution with the layer's weight, a bias of ones, as a trainer would find it."""
        weight = self.weights[placed_name(layer)]
        if weight.ndim == 4:
            out, inputs, size, _ = weight.shape
            module = nn.Conv2d(inputs, out, size, padding=size // 2)
        else:
            module = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            module.weight.copy_(weight)
            assert module.bias is not None
            module.bias.fill_(1.0)
        return module.requires_grad_(False)


@cache
def family(name: str) -> Family:
    with torch.device("meta"):
        layout = layout_from_shapes(layer_shapes(UNet(FAMILIES[name])))
    shapes = {layer: layout.layers[layer].shape for layer in (*ATTENTION, *CONVOLUTIONS, CONV_OUT, EMBEDDING)}
    shapes |= {placed_name(layer): shape for layer, shape in TEXT.items()} | {placed_name(TOKENS): (1000, 768)}
    generator = torch.Generator().manual_seed(11)
    weights = {
        layer: torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        for layer, shape in shapes.items()
    }
    weights[NORM] = torch.ones(layout.layers[NORM].shape)
    weights[generic(TEXT_NORM)] = torch.ones(1280)
    return Family(name, layout, weights)


def tree(modules: Iterable[tuple[str, nn.Module]]) -> nn.Module:
    """Modules under their dotted names, as the model that holds them would have them."""
    root = nn.Module()
    for name, module in modules:
        *parents, last = name.split(".")
        node = root
        for part in parents:
            if part not in node._modules:  # pyright: ignore[reportPrivateUsage]
                node.add_module(part, nn.Module())
            node = node.get_submodule(part)
        node.add_module(last, module)
    return root


def randomise(module: nn.Module, seed: int, scale: float = 0.05) -> None:
    """Every trainable number of an adapter, as if trained: small, and never the zeros that it starts with."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            magnitude = "dora_scale" in name or "magnitude" in name
            with torch.no_grad():
                parameter.copy_(parameter * (1 + scale * noise) if magnitude else scale * noise)
