"""Changes that hold no factors: (IA)³ (arXiv 2205.05638) and full differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .parts import as_float, known_weight, shaped


@dataclass(frozen=True)
class Ia3:
    """Attributes: `scales` of outputs or inputs, minus 1; `on_input` says which; `of_bias`: a bias is scaled, too."""

    scales: Tensor
    on_input: bool
    of_bias: bool = False
    kind = "(IA)³"
    needs_weight = True

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        weight = known_weight(weight, self.kind)
        channels = weight.shape[1 if self.on_input else 0]
        if self.scales.numel() != channels:
            where = "inputs" if self.on_input else "outputs"
            raise ValueError(f"{self.scales.numel()} scales for the layer's {channels} {where}")
        scales = as_float(self.scales).reshape(1, -1) if self.on_input else as_float(self.scales).reshape(-1, 1)
        return shaped(weight * scales.reshape(*scales.shape, *[1] * (weight.ndim - 2)), shape)


@dataclass(frozen=True)
class FullDifference:
    """Attributes: `difference` of the weight's own shape; or, where `replaces`, the new weight itself."""

    difference: Tensor
    replaces: bool = False

    @property
    def kind(self) -> str:
        return "full weight" if self.replaces else "full difference"

    @property
    def needs_weight(self) -> bool:
        return self.replaces

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        delta = shaped(as_float(self.difference), shape)
        return delta - known_weight(weight, self.kind) if self.replaces else delta
