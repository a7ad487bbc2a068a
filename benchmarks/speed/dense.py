"""LoRAs as a second layer of full size: y = W x + ΔW x with ΔW (out, in) formed anew in every pass.

What the public codes of DuoLoRA and ZipLoRA share: masks as separate parameters of every layer, one network in force at
a time, one sample a pass, both graphs of the merge kept until one backward. Written from the papers' formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duolora_core import Gates, MergeConfig, Picture
from duolora_core.merge.gates import Slot
from duolora_core.model.denoiser import Denoiser, add_noise, model_output

Network = Literal["content", "style", "merge"]


class DenseLoras(ABC):
    """Two LoRAs of every layer behind masks; `network` says which of them the next pass goes through.

    Attributes:
        masks: {layer: (of content, of style)}, the trained parameters
    """

    def __init__(self, starts: Gates, device: torch.device):
        self.network: Network = "merge"
        self.slots: Mapping[str, Slot] = starts.slots
        self.masks = {
            name: (_mask(starts.content(name), device), _mask(starts.style(name), device)) for name in starts.slots
        }

    @abstractmethod
    def delta(self, name: str) -> Tensor:
        """ΔW of a layer in the network in force, (out, in)."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [mask for pair in self.masks.values() for mask in pair]

    def gates(self) -> Gates:
        """All masks as one vector, with their graph."""
        return Gates(torch.cat([*self.parameters]), self.slots)


@contextmanager
def attached(modules: Mapping[str, nn.Module], loras: DenseLoras) -> Generator[None, None, None]:
    """Adds ΔW x to the output of every layer of `loras`, all of them linear."""

    def beside(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + F.linear(args[0], loras.delta(name))

        return hook

    handles = [modules[name].register_forward_hook(beside(name)) for name in loras.slots]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Passes:
    """The passes of one step, one sample each, at one noise level.

    Attributes:
        x: the noised latents of the content and of the style picture, (channels, h, w)
        noise: which both share
    """

    def __init__(self, denoiser: Denoiser, loras: DenseLoras, c: Picture, s: Picture, noise: Tensor, sigma: Tensor):
        self.denoiser, self.loras, self.noise, self.sigma = denoiser, loras, noise, sigma
        self.x = add_noise(c.latent.to(noise), noise, sigma), add_noise(s.latent.to(noise), noise, sigma)

    def denoised(self, network: Network, x: Tensor, condition: Any) -> Tensor:
        """The estimate of x0, (channels, h, w)."""
        self.loras.network = network
        return self.denoiser(x[None], self.sigma[None], [condition])[0]

    def output(self, network: Network, x: Tensor, condition: Any) -> Tensor:
        """What the network puts out, eps or v, (channels, h, w)."""
        return model_output(x, self.denoised(network, x, condition), self.sigma, self.denoiser.prediction)


Losses = Callable[[Passes, Picture, Picture], Mapping[str, Tensor]]


def train_dense(
    denoiser: Denoiser, loras: DenseLoras, content: Picture, style: Picture, losses: Losses, config: MergeConfig
) -> Iterator[float]:
    """Steps of AdamW on the masks, without end; yields the total of `losses`, each of them weighted already."""
    optimiser = torch.optim.AdamW(loras.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        noise = torch.randn(content.latent.shape, generator=generator).to(denoiser.sigmas.device)
        timestep = torch.randint(len(denoiser.sigmas), (), generator=generator)
        sigma = denoiser.sigmas[timestep.to(denoiser.sigmas.device)]
        passes = Passes(denoiser, loras, content, style, noise, sigma)
        total = torch.stack(list(losses(passes, content, style).values())).sum()
        loras.network = "merge"  # a checkpointed model runs forward again in backward
        total.backward()
        torch.nn.utils.clip_grad_norm_(loras.parameters, config.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield float(total.detach())


def _mask(start: Tensor, device: torch.device) -> nn.Parameter:
    return nn.Parameter(start.detach().to(device, copy=True))
