"""TIES and DARE in the core that both LoRAs share, so that rules on the entries of ΔW never form ΔW.

With orthonormal Q_up (outputs, R) spanning [up_c up_s] and Q_down (inputs, R) spanning [down_cᵀ down_sᵀ], each LoRA is
a core M_i = Q_upᵀ up_i · down_i Q_down of shape (R, R), where R ≤ r_c + r_s and ΔW_i = Q_up M_i Q_downᵀ without loss.
The cores are merged and mapped back: up = Q_up, down = M Q_downᵀ (Core Space, arXiv 2509.17786).

Text encoders and 1-D offsets are summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingsError
from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank
from ..merge.stack import LoraPair
from .training_free import stack, with_layers

CoreRule = Callable[[Tensor, Tensor], Tensor]
"""Content core and style core, both (R, R), to the merged core, (R, R)."""


@dataclass(frozen=True)
class Core:
    """Both LoRAs of one layer in a shared orthonormal basis; a side that does not cover the layer is zero."""

    up: Tensor  # (outputs, R_up), orthonormal columns
    down: Tensor  # (inputs, R_down), orthonormal columns
    content: Tensor  # (R_up, R_down)
    style: Tensor  # (R_up, R_down)

    def expanded(self, core: Tensor) -> LowRank:
        """A merged core as the LowRank of the layer."""
        return LowRank(self.up, core @ self.down.T)


def shared_core(content: LowRank | None, style: LowRank | None) -> Core:
    """The common bases by SVD of the stacked factors, as in the paper, and both cores in them.

    Singular vectors mix both LoRAs, so that the cores do overlap (after a QR decomposition the content core would fill
    one corner alone); their arbitrary signs cancel out in every rule. A rule that is not linear depends on this basis
    and thus on the factors: the paper takes them as they are in the files, which is a pair made with `basis="factors"`.

    Raises:
        ValueError: both are None.
    """
    known = [low_rank for low_rank in (content, style) if low_rank is not None]
    if not known:
        raise ValueError("a core needs at least one LoRA")
    up = torch.linalg.svd(torch.cat([low_rank.up for low_rank in known], dim=1), full_matrices=False).U
    down = torch.linalg.svd(torch.cat([low_rank.down.T for low_rank in known], dim=1), full_matrices=False).U

    def core(low_rank: LowRank | None) -> Tensor:
        if low_rank is None:
            return up.new_zeros(up.shape[1], down.shape[1])
        return (up.T @ low_rank.up) @ (low_rank.down @ down)

    return Core(up, down, core(content), core(style))


def merge_cores(pair: LoraPair, rule: CoreRule) -> FoldedLora:
    """The pair merged by `rule` in the core of each layer; lossless for a rule that is linear."""
    merged: dict[str, LowRank] = {}
    for name in pair.names:
        core = shared_core(pair.content.get(name), pair.style.get(name))
        merged[name] = core.expanded(rule(core.content, core.style))
    return stack(with_layers(pair, merged, {}))


def ties(pair: LoraPair, *, density: float = 0.2) -> FoldedLora:
    """TIES (arXiv 2306.01708) per layer: trim each core, elect a sign per entry, average what agrees with it.

    The largest `density` of each core's |entries| stay; the elected sign is that of the sum, thus of the larger one;
    the mean goes over the sides that are not zero and agree. So an entry that only one side holds keeps its full
    value, and one on which both agree is halved: with density 1 and no conflict the merge is the average, not the sum.

    Raises:
        SettingsError: `density` is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise SettingsError(f"density is {density}, but must be above 0 and at most 1.")

    def rule(content: Tensor, style: Tensor) -> Tensor:
        both = torch.stack([_trimmed(content, density), _trimmed(style, density)])  # (2, R, R)
        agrees = (both.sign() == both.sum(0).sign()) & (both != 0)
        return (both * agrees).sum(0) / agrees.sum(0).clamp(min=1)

    return merge_cores(pair, rule)


def dare(pair: LoraPair, *, drop: float = 0.5, generator: torch.Generator | None = None) -> FoldedLora:
    """DARE (arXiv 2311.03099) with a plain sum: entries of each core are dropped at random, the rest scaled up.

    M = Σ_i b_i ⊙ M_i / (1 - drop) with b_i of independent zeros (probability `drop`) and ones, whose
    expectation is the sum.

    Args:
        generator: of the drops, on the CPU; None starts one at seed 0

    Raises:
        SettingsError: `drop` is not in [0, 1).
    """
    if not 0 <= drop < 1:
        raise SettingsError(f"drop is {drop}, but must be at least 0 and below 1.")
    draws = torch.Generator().manual_seed(0) if generator is None else generator

    def rule(content: Tensor, style: Tensor) -> Tensor:
        keep = torch.rand(2, *content.shape, generator=draws) >= drop
        content_keep, style_keep = keep.to(content)
        return (content_keep * content + style_keep * style) / (1 - drop)

    return merge_cores(pair, rule)


def _trimmed(core: Tensor, density: float) -> Tensor:
    """The core with all but its largest entries zero; exactly ceil(density · entries) stay."""
    count = math.ceil(density * core.numel() - 1e-9)  # not one more by rounding
    kept = core.flatten().abs().topk(count).indices
    flat = torch.zeros_like(core).flatten()
    flat[kept] = core.flatten()[kept]
    return flat.view_as(core)
