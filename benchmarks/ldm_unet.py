"""A plain PyTorch UNet of the SDXL family with the public layer names, for tests and benchmarks without a host.

Sizes are free: `SDXL`, `SSD_1B` and `SEGMIND_VEGA` are the real ones (build them on the meta device), `TINY` trains on
a laptop. Weights of the real models fit by name, and a host's own class accepts this one's state dict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of an SDXL-family UNet. Depths are transformer blocks per attention, level by level from the top.

    Attributes:
        down_depths: per level, one entry per resnet of the down path
        mid_depth: of the middle block; None for a middle block of one resnet and no attention
        up_depths: per level, one entry per resnet of the up path, in forward order
    """

    channels: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4)
    down_depths: tuple[tuple[int, ...], ...] = ((0, 0), (2, 2), (10, 10))
    mid_depth: int | None = 10
    up_depths: tuple[tuple[int, ...], ...] = ((0, 0, 0), (2, 2, 2), (10, 10, 10))
    context: int = 2048
    pooled: int = 2816
    head: int = 64
    in_channels: int = 4
    groups: int = 32


SDXL = UNetConfig()
SSD_1B = UNetConfig(down_depths=((0, 0), (2, 2), (4, 4)), mid_depth=None, up_depths=((0, 0, 0), (2, 1, 1), (4, 4, 10)))
SEGMIND_VEGA = UNetConfig(
    down_depths=((0, 0), (1, 1), (2, 2)), mid_depth=None, up_depths=((0, 0, 0), (1, 1, 1), (2, 2, 2))
)
TINY = UNetConfig(
    channels=16,
    down_depths=((0, 0), (1, 1), (2, 2)),
    mid_depth=2,
    up_depths=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    context=24,
    pooled=20,
    head=8,
    groups=8,
)


class UNet(nn.Module):
    """eps or v from (batch, channels, h, w), (batch,) timesteps, (batch, tokens, context) and (batch, pooled)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        width, emb = config.channels, config.channels * 4
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = nn.Sequential(nn.Sequential(nn.Linear(config.pooled, emb), nn.SiLU(), nn.Linear(emb, emb)))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(config.in_channels, width, 3, padding=1)])])
        skips, ch = [width], width
        last = len(config.multipliers) - 1
        for level, multiplier in enumerate(config.multipliers):
            for depth in config.down_depths[level]:
                self.input_blocks.append(_stage(ch, width * multiplier, emb, depth, config))
                ch = width * multiplier
                skips.append(ch)
            if level != last:
                self.input_blocks.append(nn.ModuleList([Downsample(ch)]))
                skips.append(ch)
        middle: list[nn.Module] = [ResBlock(ch, ch, emb, config.groups)]
        if config.mid_depth is not None:
            middle += [SpatialTransformer(ch, config.mid_depth, config), ResBlock(ch, ch, emb, config.groups)]
        self.middle_block = nn.ModuleList(middle)
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i, depth in enumerate(config.up_depths[level]):
                stage = _stage(ch + skips.pop(), width * config.multipliers[level], emb, depth, config)
                ch = width * config.multipliers[level]
                if level and i == len(config.up_depths[level]) - 1:
                    stage.append(Upsample(ch))
                self.output_blocks.append(stage)
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, ch), nn.SiLU(), nn.Conv2d(ch, config.in_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor) -> Tensor:
        emb = self.time_embed(timestep_embedding(timesteps, self.config.channels).to(x)) + self.label_emb(y)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = _run(stage, x, emb, context)
            skips.append(x)
        x = _run(self.middle_block, x, emb, context)
        for stage in self.output_blocks:
            x = _run(stage, torch.cat([x, skips.pop()], dim=1), emb, context)
        return self.out(x)


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """(batch, width) cosines then sines of (batch,) timesteps."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def layer_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """{layer name: weight shape} of every module that has a weight."""
    weights = {name: getattr(module, "weight", None) for name, module in model.named_modules()}
    return {name: tuple(weight.shape) for name, weight in weights.items() if isinstance(weight, Tensor)}


def _stage(channels: int, out: int, emb: int, depth: int, config: UNetConfig) -> nn.ModuleList:
    stage: list[nn.Module] = [ResBlock(channels, out, emb, config.groups)]
    if depth:
        stage.append(SpatialTransformer(out, depth, config))
    return nn.ModuleList(stage)


def _run(stage: nn.Module, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
    for module in stage.children():
        if isinstance(module, ResBlock):
            x = module(x, emb)
        elif isinstance(module, SpatialTransformer):
            x = module(x, context)
        else:
            x = module(x)
    return x


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int, emb: int, groups: int):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, depth: int, config: UNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(channels, config) for _ in range(depth))
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[2:]
        hidden = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (batch, h·w, channels)
        for block in self.transformer_blocks:
            hidden = block(hidden, context)
        return x + self.proj_out(hidden).transpose(1, 2).unflatten(2, (height, width))


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.attn1 = Attention(channels, channels, config.head)
        self.attn2 = Attention(channels, config.context, config.head)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Attention(nn.Module):
    def __init__(self, channels: int, context: int, head: int):
        super().__init__()
        self.head = head
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(2, (-1, self.head)).transpose(1, 2)
            for t in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(GatedGELU(channels, channels * 4), nn.Identity(), nn.Linear(channels * 4, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class GatedGELU(nn.Module):
    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(channels, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)
