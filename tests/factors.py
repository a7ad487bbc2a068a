"""Random gentle LoRAs as plain factors, and what they change, dense and in float64: the slow reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from tiny import layout, weighted_modules


@dataclass(frozen=True)
class Factors:
    """A LoRA of one layer before any trainer's spelling: float32, its scale already 1."""

    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    down: Tensor  # (rank, in) or (rank, in, kh, kw); (rank, in, 1, 1) beside a mid
    mid: Tensor | None = None  # (rank, rank, kh, kw)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def scaled(self, factor: float) -> Factors:
        return Factors(self.up * factor, self.down, self.mid)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_factors(
    shapes: Mapping[str, tuple[int, ...]],
    rank: int | Mapping[str, int] = 4,
    seed: int = 0,
    strength: float = 0.3,
    with_mid: bool = False,
) -> dict[str, Factors]:
    """Random factors whose product has about `strength` times the spectral norm of a `tiny_unet` weight of that shape.

    With `with_mid`, convolutions larger than 1x1 are Tucker-factored as LoCon's.
    """
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Factors] = {}
    for name, shape in shapes.items():
        r = rank if isinstance(rank, int) else rank[name]
        tucker = with_mid and len(shape) == 4 and shape[2] > 1
        ones = (1,) * (len(shape) - 2)
        up = torch.randn(shape[0], r, *ones, generator=generator)
        down = torch.randn(r, shape[1], *(ones if tucker else shape[2:]), generator=generator)
        mid = torch.randn(r, r, *shape[2:], generator=generator) if tucker else None
        raw = Factors(up, down, mid)
        weight_norm = 1 + math.sqrt(shape[0] / math.prod(shape[1:]))
        made[name] = raw.scaled(strength * weight_norm / spectral_norm(raw))
    return made


def spectral_norm(factors: Factors) -> float:
    """Of ΔW, from its r columns' QR: ‖U V‖ = ‖R_u V‖, where V is `down` with the core multiplied in."""
    r_up = torch.linalg.qr(factors.up.flatten(1)).R  # (k, rank)
    down = factors.down.flatten(1)
    if factors.mid is not None:
        down = torch.einsum("rskl,si->rikl", factors.mid, down).flatten(1)
    return float(torch.linalg.matrix_norm(r_up @ torch.linalg.qr(down.T).R.T, 2))


def shapes_of(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    return {name: layout().layers[name].shape for name in names}


def dense(factors: Factors, gate: Tensor | None = None) -> Tensor:
    """ΔW in float64 and in the shape of the weight, by one sum over ranks per factor."""
    up, down = factors.up.to(torch.float64), factors.down.to(torch.float64)
    gate = torch.ones(up.shape[1], dtype=torch.float64) if gate is None else gate.to(torch.float64)
    if up.ndim == 2:
        return torch.einsum("or,r,ri->oi", up, gate, down)
    if factors.mid is None:
        return torch.einsum("or,r,rikl->oikl", up[:, :, 0, 0], gate, down)
    mid = factors.mid.to(torch.float64)
    return torch.einsum("or,r,rskl,si->oikl", up[:, :, 0, 0], gate, mid, down[:, :, 0, 0])


def with_changes(unet: UNet, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor] | None = None) -> UNet:
    """A copy of the UNet with W + ΔW (and b + Δb): the slow reference for everything that is attached or merged."""
    changed = copy.deepcopy(unet)
    modules = weighted_modules(changed)
    for name, change in weights.items():
        weight = modules[name].get_parameter("weight")
        weight.data += change.to(weight).reshape(weight.shape)
    for name, change in (biases or {}).items():
        bias = modules[name].get_parameter("bias")
        bias.data += change.to(bias)
    return changed


def add(*terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of several {layer: ΔW}; a layer missing in one is zero there."""
    total: dict[str, Tensor] = {}
    for term in terms:
        for name, change in term.items():
            total[name] = total[name] + change if name in total else change
    return total
