"""The training loop: one picture of each concept, six evaluations of the teachers, two of the merge, one step.

Everything frozen (content LoRA, style LoRA, base) and everything trained (the merge) is the same attached network with
another gate row, so a step is three batched evaluations. What has been trained so far is a valid merge at any step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import MergeConfig
from .denoiser import Denoiser, network_output, noised
from .errors import SettingsError, TrainingError
from .gated_lora import GatedLora, Row
from .gates import BlockGates, block_statistics
from .layer_priors import Role
from .losses import cycle_latent, layer_prior_loss


@dataclass(frozen=True)
class Picture:
    """One training picture.

    Attributes:
        latent: (channels, h, w), as the UNet sees it (already scaled by the latent format)
        own: the condition of its own prompt, "a <V1> object"
        combined: the condition of the combined prompt, "a <V1> object in <S2> style"
    """

    latent: Tensor
    own: Any
    combined: Any


@dataclass(frozen=True)
class StepReport:
    """One finished step. `losses` holds each term unweighted and `total` as minimised; `seconds` is wall time."""

    step: int
    steps: int
    losses: Mapping[str, float]
    sigma: float
    gradient_norm: float
    seconds: float
    blocks: Sequence[BlockGates]


@dataclass(frozen=True)
class _Sample:
    """One row of a batched evaluation."""

    row: Row
    x: Tensor  # (channels, h, w)
    condition: Any


@dataclass(frozen=True)
class _Target:
    """A network output that a student sample should match."""

    term: str
    weight: float
    output: Tensor  # (channels, h, w)


def train(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
) -> Iterator[StepReport]:
    """Trains the gates of an attached pair and yields after every step (Algorithm 3 of arXiv 2504.13206).

    One noise and one timestep serve both pictures of a step. `gated.gates` always holds the gates reached so far; on
    the way out they are detached and on the CPU.

    Raises:
        SettingsError: a side has no picture.
        TrainingError: a loss or gradient is not finite; `gated.gates` is set back to the best gates so far.
    """
    if not content or not style:
        raise SettingsError("Training needs at least one content and one style picture.")
    gates, device = gated.gates, denoiser.sigmas.device
    values = gates.values.detach().to(device, torch.float32, copy=True).requires_grad_()
    gates.values = values
    optimiser = torch.optim.AdamW([values], lr=config.learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    best, smoothed, lowest = values.detach().clone(), math.nan, math.inf
    try:
        for step in range(1, config.steps + 1):
            started = time.perf_counter()
            c, s = _draw(content, generator), _draw(style, generator)
            timestep = torch.randint(len(denoiser.sigmas), (), generator=generator)
            sigma = denoiser.sigmas[timestep.to(device)].to(torch.float32)  # ()

            students, scale = _lessons(denoiser, gated, c, s, sigma, config, generator)
            losses = _backward(denoiser, gated, students, sigma, config, scale)
            values.grad = None if values.grad is None else values.grad / scale
            prior = layer_prior_loss(gates, roles, config.prior_form, config.sparsity, config.rank_weight)
            (config.layer_prior_weight * prior).backward()
            norm = float(torch.nn.utils.clip_grad_norm_([values], config.clip))
            losses["layer_prior"] = float(prior.detach())
            losses["total"] = losses["total"] + config.layer_prior_weight * losses["layer_prior"]

            if not (math.isfinite(losses["total"]) and math.isfinite(norm)):
                with torch.no_grad():
                    values.copy_(best)
                raise TrainingError(_not_finite(step, losses, norm, float(sigma)))
            smoothed = losses["total"] if step == 1 else 0.9 * smoothed + 0.1 * losses["total"]
            if smoothed < lowest:
                best, lowest = values.detach().clone(), smoothed
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            yield StepReport(
                step=step,
                steps=config.steps,
                losses=losses,
                sigma=float(sigma),
                gradient_norm=norm,
                seconds=time.perf_counter() - started,
                blocks=block_statistics(gates, gated.pair, roles),
            )
    finally:
        gates.values = values.detach().cpu()


def _draw(pictures: Sequence[Picture], generator: torch.Generator) -> Picture:
    return pictures[int(torch.randint(len(pictures), (), generator=generator))]


def _lessons(
    denoiser: Denoiser,
    gated: GatedLora,
    c: Picture,
    s: Picture,
    sigma: Tensor,
    config: MergeConfig,
    generator: torch.Generator,
) -> tuple[list[tuple[_Sample, list[_Target]]], float]:
    """What the merge has to learn in this step: [(sample for the merge, its targets)], and the gradient's scale."""
    device = denoiser.sigmas.device
    noise_c = torch.randn(c.latent.shape, generator=generator)
    noise_s = noise_c if s.latent.shape == c.latent.shape else torch.randn(s.latent.shape, generator=generator)
    noise_c, noise_s = noise_c.to(device), noise_s.to(device)
    x_c, x_s = noised(c.latent.to(noise_c), noise_c, sigma), noised(s.latent.to(noise_s), noise_s, sigma)

    def output(x: Tensor, denoised: Tensor) -> Tensor:
        return network_output(x, denoised, sigma, denoiser.prediction)

    with_cycle = config.cycle_weight != 0
    first_hop = [_Sample("content", x_c, c.own), _Sample("style", x_s, s.own)]
    if with_cycle:
        first_hop += [_Sample("style", x_c, c.combined), _Sample("content", x_s, s.combined)]
    with torch.no_grad():
        cc, ss, *infused = _evaluate(denoiser, gated, first_hop, sigma, config.micro_batch)
    reconstruct_c = _Target("reconstruction_content", config.reconstruction_weight, output(x_c, cc))
    reconstruct_s = _Target("reconstruction_style", config.reconstruction_weight, output(x_s, ss))
    lesson_c, lesson_s = [reconstruct_c], [reconstruct_s]
    lessons = [(_Sample("merge", x_c, c.own), lesson_c), (_Sample("merge", x_s, s.own), lesson_s)]

    if with_cycle:
        hop_c, hop_s = cycle_latent(infused[0], noise_c, sigma), cycle_latent(infused[1], noise_s, sigma)
        if config.cycle_route == "authors":
            second_hop = [_Sample("style", hop_c, c.own), _Sample("content", hop_s, s.own)]
            with torch.no_grad():
                csc, scs = _evaluate(denoiser, gated, second_hop, sigma, config.micro_batch)
            lesson_c.append(_Target("cycle_style", config.cycle_weight, output(hop_c, csc)))
            lesson_s.append(_Target("cycle_content", config.cycle_weight, output(hop_s, scs)))
        else:
            back_c = _Target("cycle_style", config.cycle_weight, reconstruct_c.output)
            back_s = _Target("cycle_content", config.cycle_weight, reconstruct_s.output)
            lessons += [(_Sample("merge", hop_c, c.own), [back_c]), (_Sample("merge", hop_s, s.own), [back_s])]
    # A mean over the latent makes gradients of about 1e-7 at SDXL's size, below half precision. A power of two near
    # the number of elements brings them to the activations' own magnitude and divides out without rounding.
    return lessons, 2.0 ** round(math.log2(c.latent.numel()))


def _evaluate(
    denoiser: Denoiser, gated: GatedLora, samples: Sequence[_Sample], sigma: Tensor, micro_batch: int
) -> list[Tensor]:
    """The x0 estimates of the samples, in order; samples of one shape share a forward of up to `micro_batch`."""
    results: dict[int, Tensor] = {}
    for indices in _chunks(samples, micro_batch):
        chunk = [samples[i] for i in indices]
        with gated.rows([sample.row for sample in chunk]):
            denoised = _forward(denoiser, chunk, sigma)
        results |= dict(zip(indices, denoised, strict=True))
    return [results[i] for i in range(len(samples))]


def _backward(
    denoiser: Denoiser,
    gated: GatedLora,
    lessons: Sequence[tuple[_Sample, list[_Target]]],
    sigma: Tensor,
    config: MergeConfig,
    scale: float,
) -> dict[str, float]:
    """Adds the gradient of every lesson, times `scale`, to the gates; returns each term, and their weighted sum."""
    losses: dict[str, float] = {"total": 0.0}
    samples = [sample for sample, _ in lessons]
    for indices in _chunks(samples, config.micro_batch):
        chunk = [samples[i] for i in indices]
        with gated.rows([sample.row for sample in chunk]):
            denoised = _forward(denoiser, chunk, sigma)
            loss = denoised.new_zeros(())
            for i, sample, x0 in zip(indices, chunk, denoised, strict=True):
                student = network_output(sample.x, x0, sigma, denoiser.prediction)
                for target in lessons[i][1]:
                    term = torch.nn.functional.mse_loss(student, target.output)
                    losses[target.term] = float(term.detach())
                    loss = loss + target.weight * term
            (loss * scale).backward()  # inside `rows`: a checkpointed model runs forward again here
        losses["total"] += float(loss.detach())
    return losses


def _forward(denoiser: Denoiser, chunk: Sequence[_Sample], sigma: Tensor) -> Tensor:
    x = torch.stack([sample.x for sample in chunk])  # (batch, channels, h, w)
    return denoiser(x, sigma.expand(len(chunk)), [sample.condition for sample in chunk]).to(torch.float32)


def _chunks(samples: Sequence[_Sample], micro_batch: int) -> Iterator[list[int]]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        by_shape.setdefault(tuple(sample.x.shape), []).append(i)
    for indices in by_shape.values():
        for start in range(0, len(indices), micro_batch):
            yield indices[start : start + micro_batch]


def _not_finite(step: int, losses: Mapping[str, float], norm: float, sigma: float) -> str:
    broken = [name for name, value in losses.items() if name != "total" and not math.isfinite(value)]
    what = f"the loss term {', '.join(broken)}" if broken else f"the gradient (norm {norm})"
    return (
        f"Training stopped at step {step}: {what} is not a finite number (sigma {sigma:.3f}). The best gates so "
        f"far are "
        "kept. Lower the learning rate or the LoRAs' strengths, or run the model in bf16 or fp32 instead of fp16."
    )
