"""The targets of each step: a random sample, and what a content and a style LoRA alone make of it.

A sample is one picture of a content and one of a style LoRA, one timestep and one noise. Where several LoRAs are
merged, they take turns, so that every content LoRA meets every style LoRA and a step costs what a pair's does. The
teachers' outputs depend on the sample and never on the gates, so a pool of samples needs its teachers once, however
often it is gone through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..model.denoiser import Denoiser, add_noise
from ..model.evaluate import Sample, evaluate
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .config import MergeConfig
from .gated import GatedLora
from .losses import NoisyPicture, Student, students
from .stack import Side, label


@dataclass(frozen=True)
class Picture:
    """One training picture.

    Attributes:
        latent: (channels, h, w), as the UNet sees it (already scaled by the latent format)
        own: the condition of its own prompt, "a <V1> object"
        combined: the condition of the combined prompt, "a <V1> object in <S2> style"; None where the cycle is off
        lora: the number of its LoRA among those of its side
        others_combined: for a style picture, the conditions of the combined prompts of content 2, 3, …
    """

    latent: Tensor
    own: Any
    combined: Any
    lora: int = 0
    others_combined: Sequence[Any] = ()


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

    students: Sequence[Student]
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

    The LoRAs of each side take turns, in such a way that every pair comes in turn as well. Without a pool every sample
    is new. With one, the first `config.pool` are the same new ones; from then on they come
    back, all of them in every round, each round in another random order.
    """
    generator = torch.Generator().manual_seed(config.seed)
    count = min(config.pool or config.steps, config.steps)
    strata = torch.randperm(count, generator=generator).tolist() if config.timesteps == "stratified" else None
    pool: list[NoiseSample] = []
    contents, styles = by_lora(content), by_lora(style)
    for i in range(count):
        of_step = contents[i % len(contents)], styles[i // len(contents) % len(styles)]
        sample = draw_sample(denoiser, *of_step, generator, (strata[i], count) if strata else (0, 1))
        if count < config.steps:
            pool.append(sample)
        yield i, sample
    while pool:
        for i in torch.randperm(count, generator=generator).tolist():
            yield i, pool[i]


def by_lora(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """The pictures of each LoRA of one side."""
    return [[each for each in pictures if each.lora == lora] for lora in sorted({each.lora for each in pictures})]


def draw_sample(
    denoiser: Denoiser,
    content: Sequence[Picture],
    style: Sequence[Picture],
    generator: torch.Generator,
    stratum: tuple[int, int] = (0, 1),
) -> NoiseSample:
    """A picture of each of two LoRAs, a timestep and the noise, each uniform and in this order from the generator.

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
    """Asks the teachers: two evaluations for the reconstruction, up to four more for the cycle (Algorithm 3)."""

    def teach(samples: Sequence[Sample]) -> list[Tensor]:
        with torch.no_grad():
            return evaluate(denoiser, gated, samples, sample.sigma, plan.micro_batch)

    contents, styles = len(gated.stack.contents), len(gated.stack.styles)
    mean = (contents + styles) / 2
    content = _noisy(sample.content, "content", contents / mean, sample.content_noise, sample.sigma)
    style = _noisy(sample.style, "style", styles / mean, sample.style_noise, sample.sigma)
    if config.cycle_weight and sample.content.lora:
        style = replace(style, combined=sample.style.others_combined[sample.content.lora - 1])
    found = students(content, style, sample.sigma, denoiser.prediction, config, teach)
    return DistillationBatch(found, sample.sigma)


def _noisy(picture: Picture, side: Side, share: float, noise: Tensor, sigma: Tensor) -> NoisyPicture:
    x = add_noise(picture.latent.to(noise), noise, sigma)
    return NoisyPicture(x, noise, picture.own, picture.combined, label(side, picture.lora), share)
