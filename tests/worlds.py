"""Small worlds for the engine's tests: concepts and pairs of random gentle LoRAs on the tiny UNet.

    factors = random_factors(layout(), names, rank=4, seed=1)    # {layer: Factors}, spectral norm 0.3 of the weight's
    tensors = spell(factors, FORMATS["peft"], alpha=2.0)         # a state dict as that trainer would write it
    content = placed_lora(factors)                                   # read and placed
    network = with_changes(unet, {name: dense(f) for …})         # the slow reference: a copy with W + ΔW

References are dense and in float64; everything follows from a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duolora_core import (
    Gates,
    LoraFile,
    LoraPair,
    LoraStack,
    LowRank,
    PlacedLora,
    lora_from_tensors,
    make_pair,
    match_to_model,
    open_gates,
)
from duolora_core.merge.stack import Basis
from factors import Factors, add, dense, random_factors, shapes_of
from spellings import FORMATS, spell
from tiny import VARIED, layout, pick


def lora(
    factors: Mapping[str, Factors], name: str = "test.safetensors", offsets: Mapping[str, Tensor] | None = None
) -> LoraFile:
    """A LoraFile as ComfyUI's Train LoRA hands it over; `offsets` are `{layer.diff or layer.diff_b: (channels,)}`."""
    extra = {f"diffusion_model.{key}": value for key, value in (offsets or {}).items()}
    return lora_from_tensors({**spell(factors, FORMATS["comfy"]), **extra}, name)


def placed_lora(
    factors: Mapping[str, Factors],
    strength: float = 1.0,
    name: str = "test.safetensors",
    offsets: Mapping[str, Tensor] | None = None,
) -> PlacedLora:
    return match_to_model(lora(factors, name, offsets), layout(), strength)


@dataclass(frozen=True)
class World:
    """A pair with the factors it was made from."""

    content: Mapping[str, Factors]
    style: Mapping[str, Factors]
    pair: LoraPair

    def dense(self, gates: Gates) -> dict[str, Tensor]:
        """The merged ΔW of every layer in float64, from the pair's own basis: U diag(m) D, summed over both sides."""
        return add(
            *(
                {name: dense_low_rank(low_rank, gate(name)) for name, low_rank in side.items()}
                for side, gate in ((self.pair.content, gates.content), (self.pair.style, gates.style))
            )
        )


def dense_low_rank(low_rank: LowRank, gate: Tensor | None = None) -> Tensor:
    """(outputs, inputs) in float64."""
    gate = torch.ones(low_rank.rank) if gate is None else gate.detach()
    return torch.einsum("or,r,ri->oi", *(t.to(torch.float64) for t in (low_rank.up, gate, low_rank.down)))


def world(
    content_layers: Sequence[str],
    style_layers: Sequence[str] | None = None,
    ranks: tuple[int, int] = (4, 4),
    basis: Basis = "svd",
    seed: int = 0,
    offsets: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] = ({}, {}),
) -> World:
    content = random_factors(shapes_of(content_layers), ranks[0], seed + 1)
    style = random_factors(shapes_of(content_layers if style_layers is None else style_layers), ranks[1], seed + 2)
    concepts = (
        placed_lora(content, name="content.safetensors", offsets=offsets[0]),
        placed_lora(style, name="style.safetensors", offsets=offsets[1]),
    )
    return World(content, style, make_pair(*concepts, layout(), basis))


def varied_world() -> World:
    """Different ranks, layers of every kind, and layers that only one of the two covers."""
    names = pick(VARIED)
    return world([n for i, n in enumerate(names) if i % 5], [n for i, n in enumerate(names) if i % 7], ranks=(4, 3))


def dense_sides(built: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both ΔW, (outputs, inputs) in float64, from the files' own factors."""
    content, style = ({name: dense(f).flatten(1) for name, f in side.items()} for side in (built.content, built.style))
    return content, style


def random_gates(stack: LoraStack, seed: int = 0) -> Gates:
    """Gates around 0.6, some of them negative."""
    gates = open_gates(stack)
    gates.values = 0.6 + 0.5 * torch.randn(gates.values.shape, generator=torch.Generator().manual_seed(seed))
    return gates


def relative(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖ in float64."""
    expected = expected.to(torch.float64)
    return float((actual.to(torch.float64) - expected).norm() / expected.norm())


def bare_lora(layers: Mapping[str, LowRank], sha256: str = "", strength: float = 1.0) -> PlacedLora:
    """A concept made of LowRanks as they are, for layer tables too large to hold real weights."""
    return PlacedLora(LoraFile("bare.safetensors", sha256, {}), strength, layers, {}, {}, {})
