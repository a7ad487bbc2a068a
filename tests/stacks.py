"""Stacks of several random LoRAs on the tiny UNet, their dense sums, and pictures for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from duolora_core import Gates, LoraStack, Picture, PlacedLora, make_stack
from factors import random_factors, shapes_of
from tiny import layout, picture
from training import LAYERS
from worlds import placed_lora


def loras(count: int, first: int = 0) -> list[PlacedLora]:
    """Of different ranks, each without another layer."""
    return [
        placed_lora(
            random_factors(shapes_of(LAYERS[:i] + LAYERS[i + 1 :]), 2 + i % 3, 10 * i + 1), name=f"{i}.safetensors"
        )
        for i in range(first, first + count)
    ]


def stack_of(contents: int, styles: int, router: bool = False) -> LoraStack:
    stack = make_stack(loras(contents), loras(styles, contents), layout())
    if not router:
        return stack
    generator = torch.Generator().manual_seed(3)
    sizes = {name: sum(stack.ranks(name)) for name in stack.names}
    mixes = {name: torch.eye(r) + 0.3 * torch.randn(r, r, generator=generator) for name, r in sizes.items()}
    return replace(stack, router=mixes)


def dense(stack: LoraStack, gates: Gates, shares: Sequence[float]) -> dict[str, Tensor]:
    """Σ share_i · (U · router)_i diag(m_i) D_i of every layer, (out, in) in float64."""
    found: dict[str, Tensor] = {}
    for name in stack.names:
        parts = [lora.layers[name] for lora in stack.loras if name in lora.layers]
        up = torch.cat([part.up for part in parts], 1).double()
        down = torch.cat([part.down for part in parts]).double()
        scale = torch.cat(
            [gates.values[place].double() * s for place, s in zip(gates.slots[name].each, shares, strict=True)]
        )
        up = up @ stack.router[name].double() if stack.router else up
        found[name] = up @ torch.diag(scale) @ down
    return found


def pictures(count: int, first: int) -> list[Picture]:
    """Two of each LoRA; a style picture knows the combined prompt of three contents."""
    found: list[Picture] = []
    for lora in range(count):
        for i in (0, 1):
            one = picture(first + 2 * lora + i)
            others = [picture(90 + number).combined for number in (1, 2)]
            found.append(replace(one, lora=lora, others_combined=others))
    return found
