"""Column separation: each LoRA trains the columns that matter to it, and the two keep out of each other's way.

A column is one output of a layer, a row of `up`. Masks start closed and grow by exact top-k, content first; the scales
m of the open columns are trained, and what both LoRAs scale is penalised ("Column separation" of UnZipLoRA, arXiv
2412.04465).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..merge.roles import Role
from .trainable_lora import Side, TrainableLora

_ROLES: tuple[Side, Side] = ("content", "style")

ROWS = 256
"""So many rows of a layer's ΔW are looked at together: scoring needs them for a moment, and never a whole one."""


def separate_columns(lora: TrainableLora, role: Side, roles: Mapping[str, Role], everywhere: bool) -> None:
    """Gives every layer of a new LoRA its scales, all 1, and its mask: closed, but open where the block is its own.

    Args:
        everywhere: closed in all blocks alike, whosever they are (no block separation)
    """
    for name, up in lora.up.items():
        lora.columns[name] = torch.ones(len(up))
        lora.masks[name] = torch.full((len(up),), float(roles[name] == role and not everywhere))


def column_scores(lora: TrainableLora, name: str, step_size: float) -> Tensor:
    """mean |ΔW ⊙ ∇| of every column of a layer, (out,), from the gradients that its factors hold.

    ∇ = ∇up · down + up · ∇down is how ΔW answers to a step of its factors. ΔW is taken after one more such step, of
    `step_size`: before training it is zero, and only what it is about to become says which columns matter.
    """
    up, down = lora.up[name].detach(), lora.down[name].detach()
    up_gradient, down_gradient = lora.up[name].grad, lora.down[name].grad
    if up_gradient is None or down_gradient is None:
        raise RuntimeError(f"columns of {name} were scored before any gradient was made")
    scores: list[Tensor] = []
    for rows, gradients in zip(up.split(ROWS), up_gradient.split(ROWS), strict=True):
        answer = gradients @ down + rows @ down_gradient  # (rows, inputs)
        scores.append(((rows @ down - step_size * answer) * answer).abs().mean(dim=1))
    return torch.cat(scores)


def grow_all(
    content: TrainableLora, style: TrainableLora, scores: Mapping[Side, Mapping[str, Tensor]], share: float
) -> None:
    """`grow_masks` for every layer that both LoRAs separate.

    Choosing looks at the numbers. They are brought to the CPU in one copy and the masks back from there in another,
    so that a graphics card is waited for twice and not several times a layer.
    """
    loras = (content, style)
    names, device = list(content.masks), next(iter(content.masks.values())).device
    sizes = [len(content.masks[name]) for name in names]
    held = [lora.masks for lora in loras] + [scores[role] for role in _ROLES]
    rows = torch.stack([torch.cat([layers[name] for name in names]) for layers in held]).cpu()  # (4, all columns)
    grown: list[Tensor] = []
    for content_mask, style_mask, content_scores, style_scores in rows.split(sizes, dim=1):
        grown.append(torch.stack(grow_masks(content_mask, style_mask, content_scores, style_scores, share)))
    for lora, masks in zip(loras, torch.cat(grown, dim=1).to(device), strict=True):
        lora.masks.update(zip(names, (mask.clone() for mask in masks.split(sizes)), strict=True))


def grow_masks(
    content: Tensor, style: Tensor, content_scores: Tensor, style_scores: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """Both masks of a layer, (out,), with the best `share` of its columns added to each; open masks stay as they are.

    Content chooses first. Style chooses among the columns that content has not, as long as there are any, and where
    content is open everywhere among all.
    """
    count = max(1, round(share * len(content)))
    grown_content = _add_best(content, content_scores, torch.zeros_like(content), count)
    avoided = grown_content if bool((grown_content == 0).any()) else torch.zeros_like(content)
    return grown_content, _add_best(style, style_scores, avoided, count)


def _add_best(mask: Tensor, scores: Tensor, avoided: Tensor, count: int) -> Tensor:
    """The mask with its `count` best closed columns opened, exactly; avoided ones come after all others."""
    if bool((mask == 1).all()):
        return mask
    best_first = scores.argsort(descending=True, stable=True)
    free_first = avoided[best_first].argsort(stable=True)
    order = best_first[free_first]
    chosen = order[mask[order] == 0][:count]
    return mask.index_fill(0, chosen, 1.0)


def column_overlap(content: TrainableLora, style: TrainableLora) -> Tensor:
    """mean |m_c mask_c m_s mask_s| over the columns of all layers that both LoRAs separate, (): their orthogonality."""
    shared = [name for name in content.columns if name in style.columns]
    both = [torch.cat([lora.columns[name] * lora.masks[name] for name in shared]) for lora in (content, style)]
    return (both[0] * both[1]).abs().mean()


def clamp_columns(lora: TrainableLora) -> None:
    """Brings all scales back into [0, 1]."""
    with torch.no_grad():
        for scales in lora.columns.values():
            scales.clamp_(0.0, 1.0)
