"""A LoRA that is trained: its factors in float32, and with column separation a scale and a mask for every column.

    ΔW = alpha / r · diag(m ⊙ mask) · up · down

A column, as UnZipLoRA calls it, is one output of the layer: a column of Wᵀ, a row of `up`. So m ⊙ mask folds into `up`,
and what comes out is an ordinary LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank
from ..model.layout import UNetLayout

Side = Literal["content", "style"]
"""What a LoRA is trained for."""


@dataclass
class TrainableLora:
    """Made by `new_lora`; `train_lora` trains it in place. Convolutions are held flat, as in LowRank.

    Attributes:
        up: {layer: (out, r)}, zeros before training
        down: {layer: (r, inputs)}
        columns: {layer: m (out,)}, trained; layers whose columns are not separated are missing
        masks: {layer: (out,) of zeros and ones}, not trained; the same layers
        scale: alpha / r
        shapes: {layer: shape of the weight that it changes}
    """

    up: dict[str, Tensor]
    down: dict[str, Tensor]
    scale: float
    shapes: Mapping[str, tuple[int, ...]]
    columns: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    masks: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def rank(self) -> int:
        return next(iter(self.down.values())).shape[0]

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """(up (out, r), down (r, inputs)) of a layer, everything folded into `up`; differentiable."""
        up = self.up[name] if self.scale == 1.0 else self.scale * self.up[name]
        if name in self.columns:
            up = (self.columns[name] * self.masks[name])[:, None] * up
        return up, self.down[name]

    def trained(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything that an optimiser may change, in a fixed order."""
        for kind, table in self._tables():
            if kind != "mask":
                yield from ((f"{layer}.{kind}", tensor) for layer, tensor in table.items())

    def tensors(self) -> dict[str, Tensor]:
        """{name: tensor} of everything that makes up this LoRA, masks included."""
        return {f"{layer}.{kind}": tensor for kind, table in self._tables() for layer, tensor in table.items()}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces tensors by name, as `tensors` gives them."""
        for kind, table in self._tables():
            for layer in table:
                table[layer] = tensors.get(f"{layer}.{kind}", table[layer])

    def fold(self) -> FoldedLora:
        """The ordinary LoRA reached so far, on the CPU; later training does not change it."""
        with torch.no_grad():
            layers = {name: LowRank(*(t.detach().cpu().clone() for t in self.factors(name))) for name in self.up}
        return FoldedLora(layers, {}, {}, self.shapes, 0.0)

    def _tables(self) -> tuple[tuple[str, dict[str, Tensor]], ...]:
        return ("up", self.up), ("down", self.down), ("columns", self.columns), ("mask", self.masks)


def named_parameters(loras: Mapping[Side, TrainableLora]) -> dict[str, Tensor]:
    """{name: tensor} of everything that is trained, in a fixed order."""
    return {f"{role}.{name}": tensor for role, lora in loras.items() for name, tensor in lora.trained()}


def lora_tensors(loras: Mapping[Side, TrainableLora]) -> dict[str, Tensor]:
    """{name: tensor} of everything that makes up the LoRAs: the very tensors that the optimiser changes in place."""
    return {f"{role}.{name}": tensor for role, lora in loras.items() for name, tensor in lora.tensors().items()}


def new_lora(
    layout: UNetLayout, names: Sequence[str], rank: int, alpha: float | None = None, seed: int = 0
) -> TrainableLora:
    """A LoRA that changes nothing yet: `up` is zero and `down` normal with a deviation of 1/√inputs.

    Args:
        names: layers of the layout; in a layer narrower than `rank` the surplus ranks do no harm
        alpha: None for the rank itself, a scale of 1
    """
    generator = torch.Generator().manual_seed(seed)
    up: dict[str, Tensor] = {}
    down: dict[str, Tensor] = {}
    for name in names:
        out, *kernel = layout.layers[name].shape
        inputs = int(torch.tensor(kernel).prod())
        up[name] = torch.zeros(out, rank)
        down[name] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
    shapes = {name: layout.layers[name].shape for name in names}
    return TrainableLora(up, down, 1.0 if alpha is None else alpha / rank, shapes)
