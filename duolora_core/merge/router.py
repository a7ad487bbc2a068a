"""The closed-form router of SSR-Merge (arXiv 2606.10617): LoRAs that share layers, each kept to its own inputs.

With z = down · x, (R,), of a layer whose LoRAs lie side by side, and E_i the mean over what LoRA i alone meets on its
own pictures, over all noise levels,

    G = Σ_i E_i[z zᵀ],   Q = Σ_i P_i E_i[z zᵀ],   router = Q (G + λ · mean(diag G) · I)⁻¹   (R, R)

where P_i keeps the rows of LoRA i. The router is the ridge regression that gives of each input the components of the
LoRA that it belongs to, and of the others none. It folds into up' = up · router, so the merge stays an ordinary LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import NotFiniteError
from ..lora.parallel_layers import map_layers
from ..model.denoiser import Denoiser, add_noise
from ..model.evaluate import Sample, evaluate
from ..model.hooks import down_product, hooked_layers
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .config import MergeConfig
from .gated import GatedLora, attach
from .gates import open_gates
from .stack import LoraStack
from .teachers import Picture, by_lora, in_stratum

NOISE_LEVELS, SAMPLES = 12, 4
"""How many evaluations a LoRA's moments are taken from: so many samples at each of so many strata of the timesteps."""

RIDGE = 0.01
"""λ, as a share of the mean of G's diagonal."""

Moments = dict[str, Tensor]
"""{canonical layer: E[z zᵀ], (R, R) float32 on the CPU}"""


def with_router(
    denoiser: Denoiser,
    stack: LoraStack,
    content: Sequence[Picture],
    style: Sequence[Picture],
    config: MergeConfig,
    planner: MemoryPlanner | None = None,
) -> LoraStack:
    """The stack behind its router where the config asks for one, else as it is; raises as `fit_router`."""
    if not config.routes(len(stack.loras)):
        return stack
    planner = planner or MemoryPlanner([MemoryPlan(config.micro_batch, "none")])
    with attach(denoiser.modules, stack, open_gates(stack)) as gated:
        return replace(stack, router=fit_router(denoiser, gated, content, style, config.seed, planner))


def fit_router(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    seed: int,
    planner: MemoryPlanner,
) -> dict[str, Tensor]:
    """{canonical layer: router, (R, R) float32} of an attached stack; equal seeds give equal ones under every plan.

    Raises:
        NotFiniteError: what a LoRA meets in a layer is not finite.
        OutOfMemoryError: memory ran out, and there is no smaller plan.
    """
    found: list[Moments] = []
    for label, pictures in zip(gated.stack.labels, [*by_lora(content), *by_lora(style)], strict=True):
        found.append(planner.run_with_oom_retry(partial(_moments, denoiser, gated, label, pictures, seed)))
    return map_layers(partial(_solved, gated, found), dict.fromkeys(gated.stack.names))


def _moments(
    denoiser: Denoiser,
    gated: GatedLora,
    label: str,
    pictures: Sequence[Picture],
    seed: int,
    plan: MemoryPlan,
) -> Moments:
    """What one LoRA alone meets in every layer on its own pictures, mean over samples and positions."""
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Tensor] = {}

    def observe(name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        z = down_product(module, x, gated.down(name, module, x)).to(torch.float32)
        z = z.movedim(1, -1).flatten(0, -2) if isinstance(module, nn.Conv2d) else z.flatten(0, -2)  # (positions, R)
        moment = z.T @ z * (len(x) / len(z))
        sums[name] = sums[name] + moment if name in sums else moment
        return output

    changes = [(name, partial(observe, name)) for name in gated.stack.names]
    device, total = denoiser.sigmas.device, len(denoiser.sigmas)
    with torch.no_grad(), hooked_layers(denoiser.modules, changes):
        for level in range(NOISE_LEVELS):
            timestep = int(torch.randint(total, (), generator=generator))
            sigma = denoiser.sigmas[in_stratum(timestep, total, level, NOISE_LEVELS)].to(torch.float32)
            samples: list[Sample] = []
            for _ in range(SAMPLES):
                picture = pictures[int(torch.randint(len(pictures), (), generator=generator))]
                noise = torch.randn(picture.latent.shape, generator=generator).to(device)
                samples.append(Sample(label, add_noise(picture.latent.to(noise), noise, sigma), picture.own))
            evaluate(denoiser, gated, samples, sigma, plan.micro_batch)
    return {name: (moment / (NOISE_LEVELS * SAMPLES)).cpu() for name, moment in sums.items()}


def _solved(gated: GatedLora, moments: Sequence[Mapping[str, Tensor]], name: str, _: None) -> Tensor:
    slot = gated.gates.slots[name]
    each = [found[name].to(torch.float64) for found in moments]
    whole = torch.stack(each).sum(0)  # G, (R, R)
    if not bool(whole.isfinite().all()):
        raise NotFiniteError(
            f"Layer {name}: what a LoRA puts out there is not a finite number. Lower the LoRAs' strengths, or run the "
            "model in bf16 or fp32 instead of fp16."
        )
    places = [slice(place.start - slot.start, place.stop - slot.start) for place in slot.each]
    own = torch.cat([moment[place] for moment, place in zip(each, places, strict=True)])  # Q, (R, R)
    ridge = RIDGE * whole.diagonal().mean()
    if not ridge > 0:  # no input ever reached the layer's LoRAs: nothing to tell apart
        return torch.eye(len(whole))
    inverted = torch.linalg.solve(whole + ridge * torch.eye(len(whole), dtype=whole.dtype), own.T)
    return inverted.T.to(torch.float32).contiguous()
