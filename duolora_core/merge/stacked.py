"""All LoRAs of a layer side by side, ready to multiply: one after the other, and two of them as halves of one width.

    up = [0 U_c U_s] or [U_c U_s 0]  (out, 2m)        down = [0; D_c; D_s] or [D_c; D_s; 0]  (2m, in)

Content ends and style begins in the middle, so that the halves are views: where one sample goes through the content
LoRA and another through the style LoRA, a batched product does for both. Equal ranks need no zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from ..lora.low_rank import LowRank
from ..model.hooks import as_kernels


@dataclass(frozen=True)
class Stacked:
    """The factors of one layer as its kernels want them, see `hooks.as_kernels`.

    Attributes:
        up, down: (out, R) and (R, inputs), with R the sum of the ranks, or 2m where the halves are padded
        merge_up: what the merge has for `up`: the same, but where a router mixes it
        parts: where each LoRA's components are; all together are one slice
        half: m, or None
    """

    up: Tensor
    down: Tensor
    merge_up: Tensor
    parts: tuple[slice, ...]
    half: int | None

    @property
    def whole(self) -> slice:
        return slice(self.parts[0].start, self.parts[-1].stop)

    @property
    def up_halves(self) -> Tensor:
        """(2, m, out)."""
        return rearrange(self.up, "out (side r) -> side r out", side=2)

    @property
    def down_halves(self) -> Tensor:
        """(2, in, m)."""
        return rearrange(self.down, "(side r) inputs -> side inputs r", side=2)


def stacked(module: nn.Module, loras: Sequence[LowRank | None], like: Tensor, router: Tensor | None = None) -> Stacked:
    """The factors of the LoRAs that cover a layer, in the dtype and on the device of a tensor.

    Args:
        loras: of each LoRA, None where it does not cover the layer
        router: (R, R), by which the merge mixes the components
    """
    ranks = [0 if lora is None else lora.rank for lora in loras]
    half = half_width(*ranks) if len(ranks) == 2 and isinstance(module, nn.Linear) else None
    front, end = (0, 0) if half is None else (half - ranks[0], half - ranks[1])
    present = [lora for lora in loras if lora is not None]
    up = torch.cat([lora.up for lora in present], dim=1)
    down = torch.cat([lora.down for lora in present], dim=0).to(like.device, like.dtype)
    routed = None if router is None else (up @ router.to(up)).to(like.device, like.dtype)
    up = up.to(like.device, like.dtype)
    if front or end:
        up = torch.nn.functional.pad(up, (front, end))
        routed = None if routed is None else torch.nn.functional.pad(routed, (front, end))
        down = torch.nn.functional.pad(down, (0, 0, front, end))
    starts = list(accumulate(ranks, initial=front))
    merge_up, _ = as_kernels(module, up if routed is None else routed, down)
    up, down = as_kernels(module, up, down)
    return Stacked(up, down, merge_up, tuple(slice(*ends) for ends in pairwise(starts)), half)


def half_width(content_rank: int, style_rank: int) -> int | None:
    """The width m of both halves, or None where a layer is better off without them.

    Zeros may add no more than a third. Both ranks are multiples of 16, because only then does a batched product come
    out as the single ones do, bit for bit, in float32 (`tests/test_gated_bits.py`).
    """
    low, high = sorted((content_rank, style_rank))
    return high if 2 * low >= high and low % 16 == high % 16 == 0 else None


def stacked_rank(ranks: Sequence[int]) -> int:
    """R of `Stacked` over a linear layer, padding included."""
    half = half_width(*ranks) if len(ranks) == 2 else None
    return sum(ranks) if half is None else 2 * half
