"""DuoLoRA's step the way its authors run it, from the formulas: U diag(m) D formed in full in every layer and pass.

Their code trains at batch 1 with gradient checkpointing. Its diffusers release (0.24) checkpoints without re-entering
autograd, and so do we: the older re-entrant form would cost them a little more, since it needs a gradient of the input.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.speed.dense import DenseLoras, Losses, Passes
from duolora_core import Gates, LoraPair, MergeConfig, Picture
from duolora_core.merge.losses import layer_prior_loss
from duolora_core.merge.roles import Role
from duolora_core.model.denoiser import add_noise


class RankMaskedLoras(DenseLoras):
    """ΔW = U_c diag(m_c) D_c + U_s diag(m_s) D_s; a single LoRA is U D."""

    def __init__(self, pair: LoraPair, starts: Gates, device: torch.device, dtype: torch.dtype):
        super().__init__(starts, device)
        self._sides = {
            name: [
                (side[name].up.to(device, dtype), side[name].down.to(device, dtype))
                for side in (pair.content, pair.style)
            ]
            for name in starts.slots
        }

    def delta(self, name: str) -> Tensor:
        (up_c, down_c), (up_s, down_s) = self._sides[name]
        if self.network == "content":
            return up_c @ down_c
        if self.network == "style":
            return up_s @ down_s
        content, style = (mask.to(up_c)[:, None] for mask in self.masks[name])
        return up_c @ (content * down_c) + up_s @ (style * down_s)


def authors_losses(roles: Mapping[str, Role], config: MergeConfig) -> Losses:
    """Algorithm 3 of arXiv 2504.13206 in eight passes, the merge first; every term times its weight."""

    def losses(passes: Passes, c: Picture, s: Picture) -> dict[str, Tensor]:
        x_c, x_s = passes.x
        mc, ms = passes.output("merge", x_c, c.own), passes.output("merge", x_s, s.own)
        with torch.no_grad():
            cc, ss = passes.output("content", x_c, c.own), passes.output("style", x_s, s.own)
            cs = passes.denoised("style", x_c, c.combined)
            sc = passes.denoised("content", x_s, s.combined)
            csc = passes.output("style", add_noise(cs, passes.noise, passes.sigma), c.own)
            scs = passes.output("content", add_noise(sc, passes.noise, passes.sigma), s.own)
        mse = torch.nn.functional.mse_loss
        prior = layer_prior_loss(passes.loras.gates(), roles, config.prior_form, config.sparsity, config.rank_weight)
        return {
            "reconstruction_content": config.reconstruction_weight * mse(mc, cc),
            "reconstruction_style": config.reconstruction_weight * mse(ms, ss),
            "cycle_style": config.cycle_weight * mse(mc, csc),
            "cycle_content": config.cycle_weight * mse(ms, scs),
            "layer_prior": config.layer_prior_weight * prior,
        }

    return losses
