"""Both LoRAs of a layer side by side, ready to multiply: one after the other, and as two halves of one width.

    up = [0 U_c U_s] or [U_c U_s 0]  (out, 2m)        down = [0; D_c; D_s] or [D_c; D_s; 0]  (2m, in)

Content ends and style begins in the middle, so that the halves are views: where one sample goes through the content
LoRA and another through the style LoRA, a batched product does for both. Equal ranks need no zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..lora.low_rank import LowRank
from ..model.hooks import as_kernels


@dataclass(frozen=True)
class Stacked:
    """The factors of one layer as its kernels want them, see `hooks.as_kernels`.

    Attributes:
        up, down: (out, R) and (R, inputs), with R = content rank + style rank, or 2m where the halves are padded
        content, style: where each LoRA's components are; both together are one slice
        half: m, or None
    """

    up: Tensor
    down: Tensor
    content: slice
    style: slice
    half: int | None

    @property
    def both(self) -> slice:
        return slice(self.content.start, self.style.stop)

    @property
    def up_halves(self) -> Tensor:
        """(2, m, out)."""
        return rearrange(self.up, "out (side r) -> side r out", side=2)

    @property
    def down_halves(self) -> Tensor:
        """(2, in, m)."""
        return rearrange(self.down, "(side r) inputs -> side inputs r", side=2)


def stacked(module: nn.Module, content: LowRank | None, style: LowRank | None, like: Tensor) -> Stacked:
    """The factors of the LoRAs that cover a layer, in the dtype and on the device of a tensor."""
    ranks = [0 if part is None else part.rank for part in (content, style)]
    half = half_width(*ranks) if isinstance(module, nn.Linear) else None
    front, end = (0, 0) if half is None else (half - ranks[0], half - ranks[1])
    parts = [part for part in (content, style) if part is not None]
    up = torch.cat([part.up for part in parts], dim=1).to(like.device, like.dtype)
    down = torch.cat([part.down for part in parts], dim=0).to(like.device, like.dtype)
    if front or end:
        up = torch.nn.functional.pad(up, (front, end))
        down = torch.nn.functional.pad(down, (0, 0, front, end))
    middle = front + ranks[0]
    up, down = as_kernels(module, up, down)
    return Stacked(up, down, slice(front, middle), slice(middle, middle + ranks[1]), half)


def half_width(content_rank: int, style_rank: int) -> int | None:
    """The width m of both halves, or None where a layer is better off without them.

    Zeros may add no more than a third. Both ranks are multiples of 16, because only then does a batched product come
    out as the single ones do, bit for bit, in float32 (`tests/test_gated_bits.py`).
    """
    low, high = sorted((content_rank, style_rank))
    return high if 2 * low >= high and low % 16 == high % 16 == 0 else None


def stacked_rank(content_rank: int, style_rank: int) -> int:
    """R of `Stacked` over a linear layer, padding included."""
    half = half_width(content_rank, style_rank)
    return content_rank + style_rank if half is None else 2 * half
