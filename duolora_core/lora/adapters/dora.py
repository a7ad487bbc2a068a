"""DoRA: ΔW = m ⊙ (W + Δ) / ‖…‖ − W (arXiv 2402.09353), Δ a plain LoRA or another adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import Adapter, as_float, known_weight


@dataclass(frozen=True)
class Dora:
    """A change Δ whose sum with the weight is given new lengths m.

    Attributes:
        change: Δ
        magnitude: lengths of the rows, `out` numbers; with `of_base` also (1, in, …), those of the columns
        of_base: the rows' old lengths are those of W, as ComfyUI has it for kohya's `dora_scale`; else those of W + Δ,
            as in the paper, PEFT and ai-toolkit. Columns are always measured on W + Δ.
    """

    change: Adapter
    magnitude: Tensor
    of_base: bool
    needs_weight = True

    @property
    def kind(self) -> str:
        return "DoRA" if self.change.kind == "LoRA" else f"DoRA on {self.change.kind}"

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        weight = known_weight(weight, self.kind)
        changed = weight + self.change.delta(shape, weight)
        magnitude = as_float(self.magnitude)
        by_rows = not self.of_base or magnitude.shape[0] == weight.shape[0]
        channels = weight.shape[0 if by_rows else 1]
        if magnitude.numel() != channels:
            raise ValueError(
                f"a magnitude of shape {tuple(magnitude.shape)} does not fit a weight of shape {tuple(shape)}"
            )
        axis = 0 if by_rows else 1
        measured = weight if by_rows and self.of_base else changed
        length = measured.movedim(axis, 0).flatten(1).norm(dim=1) + torch.finfo(torch.float32).eps  # (channels,)
        ratio = (magnitude.flatten() / length).reshape(*[1] * axis, -1, *[1] * (weight.ndim - axis - 1))
        return changed.mul_(ratio).sub_(weight)
