"""Algorithm 3 of arXiv 2504.13206 written out slowly: one sample at a time, ΔW dense, the paper's latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.ldm_unet import UNet
from duolora_core import Gates, MergeConfig, Picture
from tiny import TinyDenoiser, layout, run
from training import ROLES
from worlds import World


class Reference:
    """One step of Algorithm 3 in float64. Networks are the UNet with W + ΔW; z, ā and n are the paper's."""

    def __init__(self, denoiser: TinyDenoiser, built: World, c: Picture, s: Picture, config: MergeConfig, sigma: float):
        self.denoiser, self.built, self.c, self.s, self.config = denoiser, built, c, s, config
        self.alpha = 1 / (1 + torch.tensor(sigma, dtype=torch.float64).square())
        self.timestep = denoiser.timesteps(torch.tensor([sigma]))
        x_c, x_s = (next(seen.x for seen in denoiser.seen if seen.condition is p.own).double() for p in (c, s))
        self.noise_c, self.noise_s = (x_c - c.latent) / sigma, (x_s - s.latent) / sigma
        self.z_c, self.z_s = self.alpha.sqrt() * x_c, self.alpha.sqrt() * x_s

    def network(self, sides: Sequence[tuple[Mapping[str, Any], Callable[[str], Tensor]]]) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {
            f"{name}.weight": module.get_parameter("weight") for name, module in self.denoiser.modules.items()
        }
        for side, gate in sides:
            for name, low_rank in side.items():
                change = low_rank.up.double() @ torch.diag(gate(name).double()) @ low_rank.down.double()
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + change.reshape(layout().layers[name].shape)
        return weights

    def single(self, side: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.network([(side, lambda name: torch.ones(side[name].rank))])

    def output(self, network: dict[str, Tensor], z: Tensor, condition: Any) -> Tensor:
        call = _Call(self.denoiser.unet, network)
        return run(call, z[None], self.timestep, [condition])[0]  # type: ignore[arg-type]

    def hop(self, z: Tensor, noise: Tensor, output: Tensor) -> Tensor:
        """z + √(1-ā)(n - ε); a v-prediction is turned into ε first."""
        root, rest = self.alpha.sqrt(), (1 - self.alpha).sqrt()
        eps = output if self.denoiser.prediction == "eps" else root * output + rest * z
        return z + rest * (noise - eps)

    def losses(self, gates: Gates) -> dict[str, Tensor]:
        c, s, pair = self.c, self.s, self.built.pair
        with torch.no_grad():
            only_content, only_style = self.single(pair.content), self.single(pair.style)
            cc, ss = self.output(only_content, self.z_c, c.own), self.output(only_style, self.z_s, s.own)
            cs = self.output(only_style, self.z_c, c.combined)
            sc = self.output(only_content, self.z_s, s.combined)
            z_cs, z_sc = self.hop(self.z_c, self.noise_c, cs), self.hop(self.z_s, self.noise_s, sc)
            csc, scs = self.output(only_style, z_cs, c.own), self.output(only_content, z_sc, s.own)
        merge = self.network([(pair.content, gates.content), (pair.style, gates.style)])
        mc, ms = self.output(merge, self.z_c, c.own), self.output(merge, self.z_s, s.own)
        if self.config.cycle_route == "authors":
            cycle_c, cycle_s = mse(mc, csc), mse(ms, scs)
        else:
            cycle_c, cycle_s = mse(self.output(merge, z_cs, c.own), cc), mse(self.output(merge, z_sc, s.own), ss)
        return {
            "reconstruction_content": mse(mc, cc),
            "reconstruction_style": mse(ms, ss),
            "cycle_style": cycle_c,
            "cycle_content": cycle_s,
            "layer_prior": self.prior(gates),
        }

    def prior(self, gates: Gates) -> Tensor:
        terms: list[Tensor] = []
        for name in gates.slots:
            content, style = gates.content(name).abs().sum(), gates.style(name).abs().sum()
            if ROLES[name] != "neutral" and float(content.detach()) and float(style.detach()):
                dominant, other = (content, style) if ROLES[name] == "content" else (style, content)
                terms.append(
                    self.config.sparsity * dominant + self.config.rank_weight * (other - dominant).clamp(min=0)
                )
        return torch.stack(terms).mean()

    def total(self, gates: Gates) -> Tensor:
        losses, config = self.losses(gates), self.config
        reconstruction = losses["reconstruction_content"] + losses["reconstruction_style"]
        cycle = losses["cycle_style"] + losses["cycle_content"]
        return (
            config.reconstruction_weight * reconstruction
            + config.cycle_weight * cycle
            + config.layer_prior_weight * losses["layer_prior"]
        )


class _Call(nn.Module):
    """A UNet with other weights, called like one."""

    def __init__(self, unet: UNet, weights: dict[str, Tensor]):
        super().__init__()
        self.unet, self.weights = unet, weights

    def forward(self, *args: Tensor) -> Tensor:
        return functional_call(self.unet, self.weights, args)


def mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


def wide(gates: Gates) -> Gates:
    """A float64 leaf of the same gates."""
    return Gates(gates.values.detach().double().requires_grad_(), gates.slots)
