"""How much gates could give at all: trained on true pictures of the combined prompt, which no merge has.

What such gates reach is a bound for every loss that a merge may be trained with. `ablation ceiling` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from duolora_core import attach, make_merged, open_gates
from duolora_core.model.branches import Branch

from .cases import Case
from .methods import Made
from .model import encode_picture
from .render import render
from .workbench import Workbench

PICTURES = 64


@dataclass(frozen=True)
class TrueGates:
    """Gates that are told the answers: the network's own training loss on renders of the case, base and LoRAs frozen.

    Attributes:
        batch: pictures in a step, each with its own noise and noise level
    """

    steps: int = 100
    learning_rate: float = 0.01
    batch: int = 4

    def __call__(self, bench: Workbench, case: Case) -> Made:
        pair, model = bench.pair(case), bench.model
        gates, generator = open_gates(pair), torch.Generator().manual_seed(0)
        every = torch.full((PICTURES,), 1)
        latents = encode_picture(render(every * case.content, every * case.style, generator))  # (n, 12, 16, 16)
        branches: list[Branch] = ["merge"] * self.batch
        gates.values.requires_grad_()
        optimiser = torch.optim.AdamW([gates.values], lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, self.steps)
        with attach(bench.denoiser.modules, pair, gates) as gated:
            for _ in range(self.steps):
                x0 = latents[torch.randint(PICTURES, (self.batch,), generator=generator)]
                sigma = model.sigmas[torch.randint(len(model.sigmas), (self.batch,), generator=generator)]
                noise = torch.randn(x0.shape, generator=generator)
                optimiser.zero_grad()
                with gated.branches(branches):
                    model.loss(x0, sigma, noise, [case.prompt] * self.batch).backward()
                optimiser.step()
                schedule.step()
        gates.values = gates.values.detach()
        return Made(make_merged(pair, gates).fold, gates.values.numel())
