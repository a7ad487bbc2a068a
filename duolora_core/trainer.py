"""The training loop: a lesson of the teachers (six evaluations, if it is new), two evaluations of the merge, one step.

Everything frozen (content LoRA, style LoRA, base) and everything trained (the merge) is the same attached network with
another gate row, so a step is at most three batched evaluations. What has been trained so far is a valid merge at any
step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .config import MergeConfig
from .denoiser import Denoiser
from .errors import NotFiniteError, SettingsError
from .evaluation import backward
from .gated_lora import GatedLora
from .gates import BlockGates, Gates, block_statistics, initial_gates
from .layer_priors import Role
from .lessons import Lesson, Picture, lessons
from .loss_scale import LossScale
from .losses import layer_prior_loss
from .memory.needs import Plan
from .memory.plans import Plans
from .pair import LoraPair
from .training_state import TrainingState, captured, put_back


@dataclass(frozen=True)
class Report:
    """One finished step. `losses` holds each term unweighted and `total` as minimised; `seconds` is wall time."""

    step: int
    steps: int
    losses: Mapping[str, float]
    sigma: float
    gradient_norm: float
    seconds: float
    blocks: Sequence[BlockGates]


@dataclass(frozen=True)
class StepReport(Report):
    """One finished step of gates.

    `state` copies what the training can go on from; it must be called before the next step is taken.
    """

    state: Callable[[], TrainingState]


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
    earlier: TrainingState | None = None,
) -> Iterator[StepReport]:
    """Trains the gates of an attached pair and yields after every step (Algorithm 3 of arXiv 2504.13206).

    One noise and one timestep serve both pictures of a step. `gated.gates` always holds the gates reached so far; on
    the way out they are detached and on the CPU.

    Args:
        plans: replace the config's micro-batch, and say how to go on when memory runs out
        earlier: where a training of equal inputs stopped; this one goes on from there, and what follows is bit for bit
            what would have followed then, as far as the device computes equal things equally

    Raises:
        SettingsError: a side has no picture, or `earlier` is of another number of gates.
        NotFiniteError: a loss is not finite, or a gradient at the least loss scale; `gated.gates` is set back to the
            best gates so far.
        OutOfMemoryError: memory ran out, and there is no smaller plan.
    """

    def prior(gates: Gates) -> Tensor:
        return layer_prior_loss(gates, roles, config.prior_form, config.sparsity, config.rank_weight)

    penalty = Penalty("layer_prior", config.layer_prior_weight, prior)
    return descend(denoiser, gated, content, style, roles, config, penalty, plans, earlier)


def descend(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
    penalty: Penalty,
    plans: Plans | None = None,
    earlier: TrainingState | None = None,
) -> Iterator[StepReport]:
    """The loop itself: the losses of the network's outputs, and any term that depends on the gates alone.

    The roles are for the reports only; raises as `train`.
    """
    if not content or not style:
        raise SettingsError("Training needs at least one content and one style picture.")
    plans = plans or Plans([Plan(config.micro_batch, "none")])
    gates, device = gated.gates, denoiser.sigmas.device
    values = gates.values.detach().to(device, torch.float32, copy=True).requires_grad_()
    optimiser = torch.optim.AdamW([values], lr=config.learning_rate, weight_decay=config.weight_decay)
    done, best, smoothed, lowest = 0, values.detach().clone(), math.nan, math.inf
    if earlier:
        put_back(earlier, values, optimiser)
        done, best, smoothed, lowest = earlier.step, earlier.best.to(device), earlier.smoothed, earlier.lowest
    gates.values = values
    scale = LossScale(plans.notes, earlier.scale_divisor if earlier else 1)
    taught = lessons(denoiser, gated, content, style, config, plans, done)
    try:
        for step in range(done + 1, config.steps + 1):
            started = time.perf_counter()
            lesson = next(taught)
            losses = plans.afford(partial(_gradient, denoiser, gated, lesson, penalty, scale))
            norm = float(torch.nn.utils.clip_grad_norm_([values], config.clip))
            if not (math.isfinite(losses["total"]) and math.isfinite(norm)):
                gates.values = best  # and not into `values`, from which the last report still takes its state
                raise NotFiniteError(_not_finite(step, losses, norm, float(lesson.sigma)))
            smoothed = losses["total"] if step == 1 else 0.9 * smoothed + 0.1 * losses["total"]
            if smoothed < lowest:
                best, lowest = values.detach().clone(), smoothed
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            yield StepReport(
                step=step,
                steps=config.steps,
                losses=losses,
                sigma=float(lesson.sigma),
                gradient_norm=norm,
                seconds=time.perf_counter() - started,
                blocks=block_statistics(gates, gated.pair, roles),
                state=partial(captured, step, values, optimiser, best, smoothed, lowest, scale.divisor),
            )
    finally:
        gates.values = gates.values.detach().cpu()


def _gradient(
    denoiser: Denoiser, gated: GatedLora, lesson: Lesson, penalty: Penalty, scale: LossScale, plan: Plan
) -> dict[str, float]:
    """All losses of one lesson and their total, its gradient in `grad`; repeatable."""
    accumulate = partial(backward, denoiser, gated, lesson.students, lesson.sigma, plan.micro_batch)
    losses = scale.gradient([gated.gates.values], lesson.students[0][0].x.numel(), accumulate)
    alone = penalty.loss(gated.gates)
    (penalty.weight * alone).backward()
    losses[penalty.term] = float(alone.detach())
    losses["total"] += penalty.weight * losses[penalty.term]
    return losses


def _not_finite(step: int, losses: Mapping[str, float], norm: float, sigma: float) -> str:
    broken = [name for name, value in losses.items() if name != "total" and not math.isfinite(value)]
    what = f"the loss term {', '.join(broken)}" if broken else f"the gradient (norm {norm})"
    kept = "The best gates so far are kept." if step > 1 else "No step had succeeded before it: nothing was trained."
    return (
        f"Training stopped at step {step}: {what} is not a finite number (sigma {sigma:.3f}). {kept} Lower the "
        "learning rate or the LoRAs' strengths, or run the model in bf16 or fp32 instead of fp16."
    )
