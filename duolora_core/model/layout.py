"""What an SDXL-family UNet is made of: every layer with its two public names, its block and its depth.

The canonical name of a layer is the one of the original (LDM, ComfyUI) code, `input_blocks.4.1.….attn1.to_q`;
diffusers calls the same layer `down_blocks.1.attentions.0.….attn1.to_q`. Both follow from the layer names alone, so
SDXL, SSD-1B, Segmind-Vega and smaller relatives need no table of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Part = Literal["down", "mid", "up", "other"]

_INNER_NAMES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op": "conv",
}
_OUTER_NAMES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class Block:
    """One resnet, attention or resampling block. `level` counts halvings of resolution: 0 is the latent's own."""

    ldm: str
    diffusers: str
    part: Part
    level: int


@dataclass(frozen=True)
class Layer:
    """One layer with a weight: linear (out, in), convolution (out, in, kh, kw) or norm (channels,)."""

    name: str
    diffusers: str
    block: Block
    shape: tuple[int, ...]


@dataclass(frozen=True)
class UNetLayout:
    """All layers of a UNet in forward order, by canonical (LDM) name."""

    layers: Mapping[str, Layer]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in forward order, each once."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers.values()))

    @cached_property
    def deepest_attention_level(self) -> int:
        """The level of the lowest resolution at which the UNet attends (32x32 latents of a 1024 px SDXL)."""
        levels = [layer.block.level for name, layer in self.layers.items() if ".transformer_blocks." in name]
        return max(levels, default=0)

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """{any spelling of a layer name: canonical name}: dotted or with underscores, LDM or diffusers."""
        table: dict[str, str] = {}
        for name, layer in self.layers.items():
            for spelling in (name, layer.diffusers, layer.diffusers.replace("add_embedding", "class_embedding")):
                table[spelling] = name
                table[spelling.replace(".", "_")] = name
                if spelling.endswith(".to_out.0"):  # the attention-processor files of early diffusers drop the 0
                    table[spelling.removesuffix(".0")] = name
        return table


def layout_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> UNetLayout:
    """Derives the layout from {canonical layer name: weight shape}, as `named_modules` of the UNet gives them."""
    blocks = _block_table(shapes)
    layers: dict[str, Layer] = {}
    for name in _forward_order(shapes):
        block, inner = _split(name, blocks)
        diffusers = _OUTER_NAMES.get(name) or ".".join(filter(None, (block.diffusers, _INNER_NAMES.get(inner, inner))))
        layers[name] = Layer(name, diffusers, block, tuple(shapes[name]))
    return UNetLayout(layers)


def _split(name: str, blocks: Mapping[str, Block]) -> tuple[Block, str]:
    match = re.match(r"((?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+)\.?(.*)$", name)
    if match and match[1] in blocks:
        return blocks[match[1]], match[2]
    outer = name.split(".")[0]
    return Block(outer, _OUTER_NAMES.get(name, outer).split(".")[0], "other", 0), name


def _block_table(names: Iterable[str]) -> dict[str, Block]:
    """{`input_blocks.4.1`: Block} for the whole UNet. Levels change where a resampling layer stands."""
    kinds = _block_kinds(names)
    table: dict[str, Block] = {}

    level, counts = 0, {"resnets": 0, "attentions": 0}
    for ldm in sorted((k for k in kinds if k.startswith("input_blocks.")), key=_indices):
        kind = kinds[ldm]
        if kind == "downsamplers":
            table[ldm] = Block(ldm, f"down_blocks.{level}.downsamplers.0", "down", level)
            level, counts = level + 1, {"resnets": 0, "attentions": 0}
        else:
            table[ldm] = Block(ldm, f"down_blocks.{level}.{kind}.{counts[kind]}", "down", level)
            counts[kind] += 1
    deepest = level

    counts = {"resnets": 0, "attentions": 0}
    for ldm in sorted((k for k in kinds if k.startswith("middle_block.")), key=_indices):
        kind = kinds[ldm]
        table[ldm] = Block(ldm, f"mid_block.{kind}.{counts[kind]}", "mid", deepest)
        counts[kind] += 1

    up, counts = 0, {"resnets": 0, "attentions": 0}
    for ldm in sorted((k for k in kinds if k.startswith("output_blocks.")), key=_indices):
        kind = kinds[ldm]
        if kind == "upsamplers":
            table[ldm] = Block(ldm, f"up_blocks.{up}.upsamplers.0", "up", deepest - up)
            up, counts = up + 1, {"resnets": 0, "attentions": 0}
        else:
            table[ldm] = Block(ldm, f"up_blocks.{up}.{kind}.{counts[kind]}", "up", deepest - up)
            counts[kind] += 1
    return table


def _block_kinds(names: Iterable[str]) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for name in names:
        match = re.match(r"((?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+)\.(.+)$", name)
        if match is None:
            continue
        if match[2].startswith(("in_layers.", "emb_layers.", "out_layers.", "skip_connection")):
            kinds[match[1]] = "resnets"
        elif match[2] == "op":
            kinds[match[1]] = "downsamplers"
        elif match[2] == "conv":
            kinds[match[1]] = "upsamplers"
        else:
            kinds[match[1]] = "attentions"
    return kinds


def _indices(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _forward_order(names: Iterable[str]) -> list[str]:
    parts = ["time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out"]

    def key(name: str) -> tuple[int, tuple[int, ...]]:
        head = name.split(".")[0]
        place = parts.index(head) if head in parts else len(parts)
        match = re.match(r"(?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+", name)
        return place, _indices(match[0]) if match else ()

    return sorted(names, key=key)  # stable: layers of one block keep their order
