"""ZipLoRA's step the way its public implementation runs it, from the formulas: both ΔW of a layer kept in full.

The masks stand on the columns (inputs) of ΔW; every pass of the merge adds the two masked matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.speed.dense import DenseLoras, Losses, Passes
from duolora_core import Gates, LoraPair, Picture
from duolora_core.baselines.zip_lora import mask_similarity


class ColumnMaskedLoras(DenseLoras):
    """ΔW = m_c ⊙ ΔW_c + m_s ⊙ ΔW_s, the masks (in,) over the columns; a single LoRA is its own ΔW."""

    def __init__(self, pair: LoraPair, starts: Gates, device: torch.device, dtype: torch.dtype):
        super().__init__(starts, device)
        self._deltas = {
            name: [
                side[name].up.to(device, dtype) @ side[name].down.to(device, dtype)
                for side in (pair.content, pair.style)
            ]
            for name in starts.slots
        }

    def delta(self, name: str) -> Tensor:
        content, style = self._deltas[name]
        if self.network != "merge":
            return content if self.network == "content" else style
        mask_c, mask_s = (mask.to(content) for mask in self.masks[name])
        return mask_c * content + mask_s * style


def ziplora_losses(similarity_weight: float) -> Losses:
    """L = MSE(merge, content on x_c) + MSE(merge, style on x_s) + λ · mean |m_c · m_s|, in four passes.

    Source: arXiv 2311.13600, section 4.
    """

    def losses(passes: Passes, c: Picture, s: Picture) -> dict[str, Tensor]:
        x_c, x_s = passes.x
        mc, ms = passes.output("merge", x_c, c.own), passes.output("merge", x_s, s.own)
        with torch.no_grad():
            cc, ss = passes.output("content", x_c, c.own), passes.output("style", x_s, s.own)
        mse = torch.nn.functional.mse_loss
        return {
            "reconstruction_content": mse(mc, cc),
            "reconstruction_style": mse(ms, ss),
            "similarity": similarity_weight * mask_similarity(passes.loras.gates()),
        }

    return losses
