"""DreamBooth as a loop: pictures, noise, what the network should have put out, one step of AdamW.

    L = w(sigma) · MSE(output, target) + prior_weight · MSE on class pictures        (arXiv 2208.12242)

The target is eps or v, whichever the model predicts. What has been trained so far is a valid LoRA after any step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..checkpoint.state import Checkpoint, capture, require_fitting, restore
from ..errors import NotFiniteError, SettingsError
from ..merge.trainer import StepReport
from ..model.denoiser import Denoiser, add_noise, model_output, training_target
from ..model.loss_scale import LossScale
from ..model.memory.estimate import MemoryPlan
from ..model.memory.planner import MemoryPlanner
from .attached_loras import AttachedLoras
from .config import TrainConfig
from .examples import Example, NoiseSample, draw_samples, seeded
from .loss_weighting import rate_factor, snr_weight
from .param_groups import param_groups
from .trainable_lora import TrainableLora, lora_tensors, named_parameters


@dataclass(frozen=True)
class Extras:
    """What a method adds to the loop; everything is optional.

    Attributes:
        before: called with each step, counted from 0, and the loss scale before it is taken
        around: entered for the forwards and backwards of each step
        penalty: name, weight and a loss term of the LoRAs alone, shape ()
        after: called after each step of the optimiser
        column_rate: learning rate of column scales
    """

    before: Callable[[int, LossScale], None] = lambda step, scale: None
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    penalty: tuple[str, float, Callable[[], Tensor]] | None = None
    after: Callable[[], None] = lambda: None
    column_rate: float = 0.0


def train_lora(
    denoiser: Denoiser,
    attached: AttachedLoras,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    class_examples: Sequence[Example] = (),
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
    extras: Extras | None = None,
) -> Iterator[StepReport]:
    """Trains attached LoRAs on pictures and yields after every step; `attached.loras` always holds what is reached.

    Serves DreamBooth with one LoRA, and B-LoRA with two that are trained as one (`target_modules.b_loras`). On the way
    out the factors are detached and on the CPU.

    Args:
        class_examples: pictures of the class as the model paints it, under its prompt: prior preservation
        planner: replace the config's micro-batch, and say how to go on when memory runs out
        resume: of the same training; it resumes after that step
        extras: what another method adds (`unzip`)

    Raises:
        SettingsError: there is no picture.
        NotFiniteError: a loss is not finite, or a gradient at the least loss scale; the LoRAs are as after the step
            before.
        TrainingError: `resume` is not this training's.
        OutOfMemoryError: memory ran out, and there is no smaller plan.
    """
    if not examples:
        raise SettingsError("Training needs at least one picture.")
    extras = extras or Extras()
    planner = planner or MemoryPlanner([MemoryPlan(config.micro_batch, "none")])
    if resume is not None:
        require_fitting(resume, Checkpoint(0, lora_tensors(attached.loras)), config.steps)
    device = denoiser.sigmas.device
    for lora in attached.loras.values():
        _move(lora, device, trainable=True)
    try:
        parameters = list(named_parameters(attached.loras).values())
        groups = param_groups(attached.loras, denoiser.layout, config, extras.column_rate)
        # Fused: one kernel for all factors; by the other ways a thousand small tensors make ten thousand launches, or
        # temporary copies of them all.
        fused = device.type == "cuda"
        optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused or None
        )
        if resume is not None:
            restore(resume, lora_tensors(attached.loras), optimiser)
        scale = LossScale(planner.notes, resume.scale_divisor if resume else 1)
        for step in range(resume.step if resume else 0, config.steps):
            started = time.perf_counter()
            extras.before(step, scale)
            batch = _batch(denoiser, examples, class_examples, config, step)
            attached.strength = _strength(config, step)
            with extras.around():
                losses = planner.run_with_oom_retry(partial(gradient, denoiser, attached, batch, config, scale))
            if extras.penalty is not None:
                term, weight, loss = extras.penalty
                alone = loss()
                (weight * alone).backward()
                losses[term] = float(alone.detach())
                losses["total"] += weight * losses[term]
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
            require_finite(step, losses, norm, batch)
            factor = rate_factor(step, config.steps, config.warmup, config.schedule)
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            extras.after()
            yield StepReport(
                step=step + 1,
                steps=config.steps,
                losses=losses,
                sigma=float(torch.stack([sample.sigma for sample in batch]).mean()),
                gradient_norm=norm,
                seconds=time.perf_counter() - started,
                blocks=(),
                checkpoint=partial(capture, step + 1, lora_tensors(attached.loras), optimiser, scale.divisor),
            )
    finally:
        attached.strength = 1.0
        for lora in attached.loras.values():
            _move(lora, torch.device("cpu"), trainable=False)


def gradient(
    denoiser: Denoiser,
    attached: AttachedLoras,
    batch: Sequence[NoiseSample],
    config: TrainConfig,
    scale: LossScale,
    plan: MemoryPlan,
) -> dict[str, float]:
    """The losses of a batch, each term unweighted and `total` as minimised; their gradient in `grad`. Repeatable."""
    parameters = list(named_parameters(attached.loras).values())
    elements = max(sample.noise.numel() for sample in batch)
    return scale.gradient(parameters, elements, partial(_backward, denoiser, attached, batch, config, plan.micro_batch))


def _backward(
    denoiser: Denoiser,
    attached: AttachedLoras,
    batch: Sequence[NoiseSample],
    config: TrainConfig,
    micro_batch: int,
    scale: float,
) -> dict[str, float]:
    """Adds the gradient of a batch, times `scale`, to the factors; returns each term, and their weighted sum."""
    shares = _shares(batch, config.prior_weight)
    losses: dict[str, float] = {sample.term: 0.0 for sample in batch} | {"total": 0.0}
    for chunk in _chunks(batch, micro_batch):
        with attached.branches([sample.example.branch for sample in chunk]):
            errors = _errors(denoiser, chunk)  # (samples,)
            sigma = torch.stack([sample.sigma for sample in chunk])
            share = torch.tensor([shares[sample.term] for sample in chunk], device=errors.device)
            loss = (share * snr_weight(sigma, config.min_snr_gamma, denoiser.prediction) * errors).sum()
            (loss * scale).backward()  # inside `branches`: a checkpointed model runs forward again here
        for sample, error in zip(chunk, errors.tolist(), strict=True):
            losses[sample.term] += error / sum(other.term == sample.term for other in batch)
        losses["total"] += float(loss.detach())
    return losses


def _batch(
    denoiser: Denoiser, examples: Sequence[Example], class_examples: Sequence[Example], config: TrainConfig, step: int
) -> list[NoiseSample]:
    batch = draw_samples(examples, denoiser.sigmas, config.batch, step, config.seed)
    if class_examples and config.prior_weight:
        batch += draw_samples(class_examples, denoiser.sigmas, config.batch, step, config.seed, "class")
    return batch


def _strength(config: TrainConfig, step: int) -> float:
    low, high = config.strengths
    return low + (high - low) * float(torch.rand((), generator=seeded(config.seed, "strength", step)))


def _shares(batch: Sequence[NoiseSample], prior_weight: float) -> dict[str, float]:
    """What one sample of each term contributes to the total: a mean over its term, times the term's weight."""
    counts = {term: sum(sample.term == term for sample in batch) for term in {sample.term for sample in batch}}
    return {term: (prior_weight if term == "class" else 1.0) / count for term, count in counts.items()}


def _errors(denoiser: Denoiser, chunk: Sequence[NoiseSample]) -> Tensor:
    """The mean squared error of the network's output for each sample, (samples,)."""
    noise = torch.stack([sample.noise for sample in chunk])  # (samples, channels, h, w)
    x0 = torch.stack([sample.example.latent.to(noise) for sample in chunk])
    sigma = torch.stack([sample.sigma for sample in chunk])
    x, level = add_noise(x0, noise, sigma), sigma.view(-1, 1, 1, 1)
    denoised = denoiser(x, sigma, [sample.example.condition for sample in chunk]).to(torch.float32)
    output = model_output(x, denoised, level, denoiser.prediction)
    return (output - training_target(x0, noise, level, denoiser.prediction)).square().mean(dim=(1, 2, 3))


def _chunks(batch: Sequence[NoiseSample], micro_batch: int) -> Iterator[list[NoiseSample]]:
    """Samples of one size, those of one branch side by side."""
    by_shape: dict[tuple[int, ...], list[NoiseSample]] = {}
    for sample in sorted(batch, key=lambda sample: sample.example.branch):
        by_shape.setdefault(tuple(sample.noise.shape), []).append(sample)
    for group in by_shape.values():
        for start in range(0, len(group), micro_batch):
            yield group[start : start + micro_batch]


def _move(lora: TrainableLora, device: torch.device, trainable: bool) -> None:
    trained = {name for name, _ in lora.trained()}
    lora.put(
        {
            name: tensor.detach().to(device, torch.float32, copy=True).requires_grad_(trainable and name in trained)
            for name, tensor in lora.tensors().items()
        }
    )


def require_finite(step: int, losses: Mapping[str, float], norm: float, batch: Sequence[NoiseSample]) -> None:
    """Refuses to go on with numbers that are not finite.

    Args:
        step: counted from 0
        norm: of the gradient

    Raises:
        NotFiniteError: names the term, and what mends it.
    """
    if math.isfinite(losses["total"]) and math.isfinite(norm):
        return
    broken = [name for name, value in losses.items() if name != "total" and not math.isfinite(value)]
    what = f"the loss of {', '.join(broken)}" if broken else f"the gradient (norm {norm})"
    levels = ", ".join(f"{float(sample.sigma):.3f}" for sample in batch)
    before = "The LoRA is kept as it was after the step before." if step else "No step had succeeded before it."
    raise NotFiniteError(
        f"Training stopped at step {step + 1}: {what} is not a finite number (sigma {levels}). {before} Lower the "
        "learning rate, or run the model in bf16 or fp32 instead of fp16."
    )
