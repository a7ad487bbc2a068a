"""The targets of each step: a random sample, and what the content and style LoRAs alone make of it.

A sample is one picture of each LoRA, one timestep and one noise. The teachers' outputs depend on it and never on the
gates, so a pool of samples needs its teachers once, however often it is gone through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..model.denoiser import Denoiser, add_noise, model_output
from ..model.evaluate import Sample, Target, evaluate
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .config import MergeConfig
from .gated import GatedLora
from .losses import cycle_latent


@dataclass(frozen=True)
class Picture:
    """One training picture.

    Attributes:
        latent: (channels, h, w), as the UNet sees it (already scaled by the latent format)
        own: the condition of its own prompt, "a <V1> object"
        combined: the condition of the combined prompt, "a <V1> object in <S2> style"; None where the cycle is off
    """

    latent: Tensor
    own: Any
    combined: Any


@dataclass(frozen=True)
class NoiseSample:
    """What chance decides of a step. Both noises are one where the pictures have one size.

    Attributes:
        sigma: (), float32
        content_noise, style_noise: as the pictures' latents, float32; on the denoiser's device, as sigma is
    """

    content: Picture
    style: Picture
    sigma: Tensor
    content_noise: Tensor
    style_noise: Tensor


@dataclass(frozen=True)
class DistillationBatch:
    """Students and their targets in one step: at most six latents, 1.5 MiB at SDXL's 1024 px.

    Attributes:
        students: (sample for the merge, its targets)
        sigma: (), of all of them
    """

    students: Sequence[tuple[Sample, list[Target]]]
    sigma: Tensor


def distillation_batches(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    config: MergeConfig,
    planner: MemoryPlanner,
    done: int = 0,
) -> Iterator[DistillationBatch]:
    """A batch for each step of a training; equal seeds give equal batches, under whatever plan they are made.

    A batch is made when its turn comes first, so that no step waits for more than its own teachers. Only those that
    come back are kept.

    Args:
        done: steps that were taken before; the batches begin after theirs
    """
    cached: dict[int, DistillationBatch] = {}
    for place, sample in islice(_schedule(denoiser, content, style, config), done, None):
        batch = cached.get(place) or planner.run_with_oom_retry(
            partial(_distillation_batch, denoiser, gated, sample, config)
        )
        if config.pool and config.pool < config.steps:
            cached[place] = batch
        yield batch


def _schedule(
    denoiser: Denoiser, content: Sequence[Picture], style: Sequence[Picture], config: MergeConfig
) -> Iterator[tuple[int, NoiseSample]]:
    """(which sample, the sample) for each step.

    Without a pool every sample is new. With one, the first `config.pool` are the same new ones; from then on they come
    back, all of them in every round, each round in another random order.
    """
    generator = torch.Generator().manual_seed(config.seed)
    count = min(config.pool or config.steps, config.steps)
    strata = torch.randperm(count, generator=generator).tolist() if config.timesteps == "stratified" else None
    pool: list[NoiseSample] = []
    for i in range(count):
        sample = draw_sample(denoiser, content, style, generator, (strata[i], count) if strata else (0, 1))
        if count < config.steps:
            pool.append(sample)
        yield i, sample
    while pool:
        for i in torch.randperm(count, generator=generator).tolist():
            yield i, pool[i]


def draw_sample(
    denoiser: Denoiser,
    content: Sequence[Picture],
    style: Sequence[Picture],
    generator: torch.Generator,
    stratum: tuple[int, int] = (0, 1),
) -> NoiseSample:
    """A picture of each LoRA, a timestep and the noise, each uniform and in this order from the generator.

    The timestep falls into stratum `i` of `n` equal ones, see `in_stratum`; by default into all there is.
    """
    device, total = denoiser.sigmas.device, len(denoiser.sigmas)
    c, s = _choice(content, generator), _choice(style, generator)
    timestep = in_stratum(int(torch.randint(total, (), generator=generator)), total, *stratum)
    content_noise = torch.randn(c.latent.shape, generator=generator)
    same = s.latent.shape == c.latent.shape
    style_noise = content_noise if same else torch.randn(s.latent.shape, generator=generator)
    sigma = denoiser.sigmas[timestep].to(torch.float32)
    return NoiseSample(c, s, sigma, content_noise.to(device), style_noise.to(device))


def in_stratum(timestep: int, timesteps: int, stratum: int, strata: int) -> int:
    """Squeezes a uniform timestep of 0 … timesteps - 1 into one of `strata` equal parts of that range.

    ⌊(stratum · timesteps + timestep) / strata⌋: over all strata together, every timestep stays equally likely, also
    where the parts are no whole numbers or there are more of them than timesteps.
    """
    return (stratum * timesteps + timestep) // strata


def _choice(pictures: Sequence[Picture], generator: torch.Generator) -> Picture:
    return pictures[int(torch.randint(len(pictures), (), generator=generator))]


def _distillation_batch(
    denoiser: Denoiser, gated: GatedLora, sample: NoiseSample, config: MergeConfig, plan: MemoryPlan
) -> DistillationBatch:
    """Asks the teachers: two evaluations for the reconstruction, four more for the cycle (Algorithm 3)."""
    c, s, sigma, noise_c, noise_s = sample.content, sample.style, sample.sigma, sample.content_noise, sample.style_noise
    x_c, x_s = add_noise(c.latent.to(noise_c), noise_c, sigma), add_noise(s.latent.to(noise_s), noise_s, sigma)

    def output(x: Tensor, denoised: Tensor) -> Tensor:
        return model_output(x, denoised, sigma, denoiser.prediction)

    with_cycle = config.cycle_weight != 0
    first_hop = [Sample("content", x_c, c.own), Sample("style", x_s, s.own)]
    if with_cycle:
        first_hop += [Sample("style", x_c, c.combined), Sample("content", x_s, s.combined)]
    with torch.no_grad():
        cc, ss, *infused = evaluate(denoiser, gated, first_hop, sigma, plan.micro_batch)
    reconstruct_c = Target("reconstruction_content", config.reconstruction_weight, output(x_c, cc))
    reconstruct_s = Target("reconstruction_style", config.reconstruction_weight, output(x_s, ss))
    targets_c, targets_s = [reconstruct_c], [reconstruct_s]
    students = [(Sample("merge", x_c, c.own), targets_c), (Sample("merge", x_s, s.own), targets_s)]

    if with_cycle:
        hop_c, hop_s = cycle_latent(infused[0], noise_c, sigma), cycle_latent(infused[1], noise_s, sigma)
        if config.cycle_route == "authors":
            second_hop = [Sample("style", hop_c, c.own), Sample("content", hop_s, s.own)]
            with torch.no_grad():
                csc, scs = evaluate(denoiser, gated, second_hop, sigma, plan.micro_batch)
            targets_c.append(Target("cycle_style", config.cycle_weight, output(hop_c, csc)))
            targets_s.append(Target("cycle_content", config.cycle_weight, output(hop_s, scs)))
        else:
            back_c = Target("cycle_style", config.cycle_weight, reconstruct_c.output)
            back_s = Target("cycle_content", config.cycle_weight, reconstruct_s.output)
            students += [(Sample("merge", hop_c, c.own), [back_c]), (Sample("merge", hop_s, s.own), [back_s])]
    return DistillationBatch(students, sigma)
