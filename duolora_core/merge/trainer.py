"""The training loop: the teachers' targets (six evaluations, if new), two evaluations of the merge, one step.

Everything frozen (each LoRA alone, base) and everything trained (the merge) is the same attached network with
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

from ..checkpoint.state import Checkpoint, capture, require_fitting, restore
from ..errors import NotFiniteError, SettingsError
from ..model.denoiser import Denoiser
from ..model.evaluate import backward
from ..model.loss_scale import LossScale
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .config import MergeConfig
from .gated import GatedLora
from .gates import Gates, initial_gates
from .losses import Penalty, layer_prior
from .roles import Role
from .stack import LoraStack
from .statistics import BlockGates, block_statistics
from .teachers import DistillationBatch, Picture, distillation_batches


@dataclass(frozen=True)
class StepReport:
    """One finished step.

    Attributes:
        losses: each term unweighted, and `total` as minimised
        sigma: of the step; the mean where its samples have several
        seconds: wall time
        blocks: of gates; empty where LoRAs are trained
        checkpoint: copies what the training can be resumed from; only before the next step is taken, but also when
            that one was broken off
    """

    step: int
    steps: int
    losses: Mapping[str, float]
    sigma: float
    gradient_norm: float
    seconds: float
    blocks: Sequence[BlockGates]
    checkpoint: Callable[[], Checkpoint]


def gates_at_start(gates: Gates) -> Checkpoint:
    """The training of these gates before its first step: what it begins with, and what its checkpoints are like."""
    losses = {"smoothed": math.nan, "lowest": math.inf}  # of the total loss: now, and when the gates were best
    return Checkpoint(0, {"values": gates.values, "best": gates.values}, numbers=losses)


def starting_gates(stack: LoraStack, roles: Mapping[str, Role], config: MergeConfig) -> Gates:
    """The gates that a training by this config starts from; equal seeds give equal gates, see `initial_gates`."""
    generator = torch.Generator().manual_seed(config.seed)
    return initial_gates(
        stack, roles, config.initialisation, config.content_threshold, config.style_threshold, generator
    )


def train(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[StepReport]:
    """Trains the gates of attached LoRAs and yields after every step (Algorithm 3 of arXiv 2504.13206).

    One noise and one timestep serve both pictures of a step. `gated.gates` always holds the gates reached so far; on
    the way out they are detached and on the CPU.

    Args:
        planner: replace the config's micro-batch, and say how to go on when memory runs out
        resume: where a training of equal inputs stopped; this one resumes there, and what follows is bit for bit
            what would have followed then, as far as the device computes equal things equally

    Raises:
        SettingsError: a LoRA has no picture.
        TrainingError: `resume` is not this training's.
        NotFiniteError: a loss is not finite, or a gradient at the least loss scale; `gated.gates` is set back to the
            best gates so far.
        OutOfMemoryError: memory ran out, and there is no smaller plan.
    """
    penalty = layer_prior(roles, config)
    return train_gates(denoiser, gated, content, style, roles, config, penalty, planner, resume)


def train_gates(
    denoiser: Denoiser,
    gated: GatedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    roles: Mapping[str, Role],
    config: MergeConfig,
    penalty: Penalty,
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[StepReport]:
    """The loop itself: the losses of the network's outputs, and any term that depends on the gates alone.

    The roles are for the reports only; raises as `train`.
    """
    for side, pictures, loras in (("content", content, gated.stack.contents), ("style", style, gated.stack.styles)):
        if {each.lora for each in pictures} != set(range(len(loras))):
            raise SettingsError(f"Training needs at least one picture of every {side} LoRA.")
    planner = planner or MemoryPlanner([MemoryPlan(config.micro_batch, "none")])
    gates, device = gated.gates, denoiser.sigmas.device
    state = gates_at_start(gates)
    if resume is not None:
        require_fitting(resume, state, config.steps)
        state = resume
    values = gates.values.detach().to(device, torch.float32, copy=True).requires_grad_()
    optimiser = torch.optim.AdamW([values], lr=config.learning_rate, weight_decay=config.weight_decay)
    restore(state, {"values": values}, optimiser)
    best = state.tensors["best"].detach().to(device, torch.float32, copy=True)
    smoothed, lowest = state.numbers["smoothed"], state.numbers["lowest"]
    gates.values = values
    scale = LossScale(planner.notes, state.scale_divisor)
    batches = distillation_batches(denoiser, gated, content, style, config, planner, state.step)
    try:
        for step in range(state.step + 1, config.steps + 1):
            started = time.perf_counter()
            batch = next(batches)
            losses = planner.run_with_oom_retry(partial(_gradient, denoiser, gated, batch, penalty, scale))
            norm = float(torch.nn.utils.clip_grad_norm_([values], config.clip))
            if not (math.isfinite(losses["total"]) and math.isfinite(norm)):
                gates.values = best  # and not into `values`, from which the last report still takes its state
                raise NotFiniteError(_not_finite(step, losses, norm, float(batch.sigma)))
            smoothed = losses["total"] if step == 1 else 0.9 * smoothed + 0.1 * losses["total"]
            if smoothed < lowest:
                best, lowest = values.detach().clone(), smoothed
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            kept, numbers = {"values": values, "best": best}, {"smoothed": smoothed, "lowest": lowest}
            yield StepReport(
                step=step,
                steps=config.steps,
                losses=losses,
                sigma=float(batch.sigma),
                gradient_norm=norm,
                seconds=time.perf_counter() - started,
                blocks=block_statistics(gates, gated.stack, roles),
                checkpoint=partial(capture, step, kept, optimiser, scale.divisor, numbers),
            )
    finally:
        gates.values = gates.values.detach().cpu()


def _gradient(
    denoiser: Denoiser, gated: GatedLora, batch: DistillationBatch, penalty: Penalty, scale: LossScale, plan: MemoryPlan
) -> dict[str, float]:
    """All losses of one batch and their total, its gradient in `grad`; repeatable."""
    accumulate = partial(backward, denoiser, gated, batch.students, batch.sigma, plan.micro_batch)
    losses = scale.gradient([gated.gates.values], batch.students[0][0].x.numel(), accumulate)
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
