"""The training loop: one picture of each concept, six evaluations of the teachers, two of the merge, one step.

Everything frozen (content LoRA, style LoRA, base) and everything trained (the merge) is the same attached network with
another gate row, so a step is three batched evaluations. What has been trained so far is a valid merge at any step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .config import MergeConfig
from .denoiser import Denoiser, network_output, noised
from .errors import SettingsError, TrainingError
from .evaluation import Sample, Target, backward, evaluate
from .gated_lora import GatedLora
from .gates import BlockGates, Gates, block_statistics, initial_gates
from .layer_priors import Role
from .losses import cycle_latent, layer_prior_loss
from .memory import Plan
from .pair import LoraPair
from .plans import Plans


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
class Penalty:
    """A loss term that needs no network: its name in the reports, its weight, and the function, () in the gates."""

    term: str
    weight: float
    loss: Callable[[Gates], Tensor]


def starting_gates(pair: LoraPair, roles: Mapping[str, Role], config: MergeConfig) -> Gates:
    """The gates that a training by this config starts from; equal seeds give equal gates, see `initial_gates`."""
    generator = torch.Generator().manual_seed(config.seed)
    return initial_gates(
        pair, roles, config.initialisation, config.content_threshold, config.style_threshold, generator
    )


def train(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
    plans: Plans | None = None,
) -> Iterator[StepReport]:
    """Trains the gates of an attached pair and yields after every step (Algorithm 3 of arXiv 2504.13206).

    One noise and one timestep serve both pictures of a step. `gated.gates` always holds the gates reached so far; on
    the way out they are detached and on the CPU.

    Args:
        plans: replace the config's micro-batch, and say how to go on when memory runs out

    Raises:
        SettingsError: a side has no picture.
        TrainingError: a loss or gradient is not finite; `gated.gates` is set back to the best gates so far.
        OutOfMemoryError: memory ran out, and there is no smaller plan.
    """

    def prior(gates: Gates) -> Tensor:
        return layer_prior_loss(gates, roles, config.prior_form, config.sparsity, config.rank_weight)

    penalty = Penalty("layer_prior", config.layer_prior_weight, prior)
    return descend(denoiser, gated, content, style, roles, config, penalty, plans)


def descend(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
    penalty: Penalty,
    plans: Plans | None = None,
) -> Iterator[StepReport]:
    """The loop itself: the losses of the network's outputs, and any term that depends on the gates alone.

    The roles are for the reports only; raises as `train`.
    """
    if not content or not style:
        raise SettingsError("Training needs at least one content and one style picture.")
    plans = plans or Plans([Plan(config.micro_batch, checkpointing=False)])
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

            losses = plans.afford(
                partial(_gradient, denoiser, gated, c, s, sigma, config, generator, generator.get_state())
            )
            alone = penalty.loss(gates)
            (penalty.weight * alone).backward()
            norm = float(torch.nn.utils.clip_grad_norm_([values], config.clip))
            losses[penalty.term] = float(alone.detach())
            losses["total"] = losses["total"] + penalty.weight * losses[penalty.term]

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


def _gradient(
    denoiser: Denoiser,
    gated: GatedLora,
    c: Picture,
    s: Picture,
    sigma: Tensor,
    config: MergeConfig,
    generator: torch.Generator,
    state: Tensor,
    plan: Plan,
) -> dict[str, float]:
    """The network losses of one step, their gradient in `grad`; repeatable, because noise starts from `state`."""
    values = gated.gates.values
    values.grad = None
    generator.set_state(state)
    lessons, scale = _lessons(denoiser, gated, c, s, sigma, config, plan.micro_batch, generator)
    losses = backward(denoiser, gated, lessons, sigma, plan.micro_batch, scale)
    values.grad = None if values.grad is None else values.grad / scale
    return losses


def _lessons(
    denoiser: Denoiser,
    gated: GatedLora,
    c: Picture,
    s: Picture,
    sigma: Tensor,
    config: MergeConfig,
    micro_batch: int,
    generator: torch.Generator,
) -> tuple[list[tuple[Sample, list[Target]]], float]:
    """What the merge has to learn in this step: [(sample for the merge, its targets)], and the gradient's scale."""
    device = denoiser.sigmas.device
    noise_c = torch.randn(c.latent.shape, generator=generator)
    noise_s = noise_c if s.latent.shape == c.latent.shape else torch.randn(s.latent.shape, generator=generator)
    noise_c, noise_s = noise_c.to(device), noise_s.to(device)
    x_c, x_s = noised(c.latent.to(noise_c), noise_c, sigma), noised(s.latent.to(noise_s), noise_s, sigma)

    def output(x: Tensor, denoised: Tensor) -> Tensor:
        return network_output(x, denoised, sigma, denoiser.prediction)

    with_cycle = config.cycle_weight != 0
    first_hop = [Sample("content", x_c, c.own), Sample("style", x_s, s.own)]
    if with_cycle:
        first_hop += [Sample("style", x_c, c.combined), Sample("content", x_s, s.combined)]
    with torch.no_grad():
        cc, ss, *infused = evaluate(denoiser, gated, first_hop, sigma, micro_batch)
    reconstruct_c = Target("reconstruction_content", config.reconstruction_weight, output(x_c, cc))
    reconstruct_s = Target("reconstruction_style", config.reconstruction_weight, output(x_s, ss))
    lesson_c, lesson_s = [reconstruct_c], [reconstruct_s]
    lessons = [(Sample("merge", x_c, c.own), lesson_c), (Sample("merge", x_s, s.own), lesson_s)]

    if with_cycle:
        hop_c, hop_s = cycle_latent(infused[0], noise_c, sigma), cycle_latent(infused[1], noise_s, sigma)
        if config.cycle_route == "authors":
            second_hop = [Sample("style", hop_c, c.own), Sample("content", hop_s, s.own)]
            with torch.no_grad():
                csc, scs = evaluate(denoiser, gated, second_hop, sigma, micro_batch)
            lesson_c.append(Target("cycle_style", config.cycle_weight, output(hop_c, csc)))
            lesson_s.append(Target("cycle_content", config.cycle_weight, output(hop_s, scs)))
        else:
            back_c = Target("cycle_style", config.cycle_weight, reconstruct_c.output)
            back_s = Target("cycle_content", config.cycle_weight, reconstruct_s.output)
            lessons += [(Sample("merge", hop_c, c.own), [back_c]), (Sample("merge", hop_s, s.own), [back_s])]
    # A mean over the latent makes gradients of about 1e-7 at SDXL's size, below half precision. A power of two near
    # the number of elements brings them to the activations' own magnitude and divides out without rounding.
    return lessons, 2.0 ** round(math.log2(c.latent.numel()))


def _not_finite(step: int, losses: Mapping[str, float], norm: float, sigma: float) -> str:
    broken = [name for name, value in losses.items() if name != "total" and not math.isfinite(value)]
    what = f"the loss term {', '.join(broken)}" if broken else f"the gradient (norm {norm})"
    return (
        f"Training stopped at step {step}: {what} is not a finite number (sigma {sigma:.3f}). The best gates so "
        f"far are "
        "kept. Lower the learning rate or the LoRAs' strengths, or run the model in bf16 or fp32 instead of fp16."
    )
