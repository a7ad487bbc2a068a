"""FLOPs of training on SDXL's real structure, counted by PyTorch over the code that really trains.

Everything runs on the meta device, so the counts are exact, the same on every machine, and need no memory. A product
of (m, k) and (k, n) counts 2 m k n. Attention counts its two products forward and four backward, its softmax nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ldm_unet import SDXL, TINY, UNetConfig
from benchmarks.random_sdxl import UNetDenoiser, checkpointed, random_pair, random_pictures, random_unet
from benchmarks.speed.contestants import CONTESTANTS, Task
from benchmarks.speed.meta import ReadingOnes
from duolora_core import MergeConfig, attach, layer_roles, open_gates, starting_gates, train
from duolora_core.merge.gated import GatedLora
from duolora_core.model.branches import Branch
from duolora_core.model.denoiser import Prediction
from duolora_core.model.evaluate import Sample, Target, backward, evaluate


def meta_task(pixels: int, rank: int = 64, config: UNetConfig = SDXL) -> Task:
    """Two LoRAs on all attention linears of a UNet without values, in bf16."""
    denoiser = UNetDenoiser(random_unet(config, torch.bfloat16, "meta"))
    return Task(denoiser, random_pair(denoiser.layout, rank, "factors"), pixels)  # a basis has no FLOPs in a step


def flops(work: Callable[[], object]) -> int:
    """FLOPs of what the function does, on any device."""
    # PyTorch knows the forms that are not in place alone.
    missing = {torch.ops.aten.baddbmm_: _batched_product, torch.ops.aten.addmm_: _product}
    with FlopCounterMode(display=False, custom_mapping=missing) as counter:
        work()
    return counter.get_total_flops()


def step_flops(contestant: str, task: Task) -> int:
    """FLOPs of one whole training step, optimiser and all."""
    with ReadingOnes(), CONTESTANTS[contestant](task) as step:
        return flops(step)


def limit_flops(task: Task) -> int:
    """FLOPs that no exact step can go below, if adapters cost nothing: 6 forwards and 2 forwards with backward.

    The backward is the least that gives gates a gradient: the gradient of every adapted layer's output, through frozen
    weights, without any weight's gradient, and not below the first adapted layer. Text is a constant, so keys and
    values of the cross-attention pass no gradient on.
    """
    unet, x, texts = task.denoiser.unet, *_inputs(task.denoiser, task.pixels)
    with torch.no_grad():
        forward = flops(lambda: unet(x, *texts))
    return 6 * forward + 2 * passing_flops(task.denoiser, task.pair.names, task.pixels)


def passing_flops(denoiser: UNetDenoiser, names: Sequence[str], pixels: int) -> int:
    """FLOPs of a forward and of the least backward that gives the outputs of these layers their gradient."""
    unet, x, texts = denoiser.unet, *_inputs(denoiser, pixels)

    def student() -> None:
        leaf = torch.zeros((), device=denoiser.device, dtype=denoiser.dtype, requires_grad=True)
        with _shifted([denoiser.modules[name] for name in names], leaf):
            unet(x, *texts).sum().backward()

    return flops(student)


@dataclass(frozen=True)
class Prices:
    """FLOPs of one sample in our engine: of a teacher's evaluation, and of a student's with its backward."""

    teacher: int
    student: int

    def of(self, evaluations: Evaluations) -> int:
        return self.teacher * evaluations.teachers + self.student * evaluations.students


def prices(task: Task) -> Prices:
    """Counted over `evaluate` and `backward`, of which the trainer's steps consist."""
    denoiser, config = task.denoiser, task.config
    content, _ = random_pictures(task.pixels)
    x, sigma = content[0].latent.to(denoiser.device), denoiser.sigmas[500]
    gates = open_gates(task.pair)
    gates.values = gates.values.to(denoiser.device).requires_grad_()

    def sample(branch: Branch) -> Sample:
        return Sample(branch, x, content[0].own)

    def teacher(gated: GatedLora) -> None:
        with torch.no_grad():
            evaluate(denoiser, gated, [sample("content")], sigma, config.micro_batch)

    def student(gated: GatedLora) -> None:
        targeted = sample("merge"), [Target("loss", 1.0, x)]
        backward(denoiser, gated, [targeted], sigma, config.micro_batch, scale=1.0)

    blocks = checkpointed(denoiser.unet, task.checkpointing)
    with ReadingOnes(), blocks, attach(denoiser.modules, task.pair, gates) as gated:
        return Prices(flops(lambda: teacher(gated)), flops(lambda: student(gated)))


@dataclass(frozen=True)
class Evaluations:
    """How many samples a training sends through the network, without and with gradient."""

    teachers: int
    students: int


def evaluations(config: MergeConfig) -> Evaluations:
    """Counted while a tiny UNet really trains by this config, to its end."""
    denoiser = _Tally(UNetDenoiser(random_unet(TINY, torch.float32)))
    pair = random_pair(denoiser.layout, rank=1)
    roles = layer_roles(denoiser.layout, config.layer_prior)
    with attach(denoiser.modules, pair, starting_gates(pair, roles, config)) as gated:
        for _ in train(denoiser, gated, *random_pictures(64), roles, config):
            pass
    return Evaluations(denoiser.samples[False], denoiser.samples[True])


def _product(_added: Sequence[int], a: Sequence[int], b: Sequence[int], **_others: Any) -> int:
    """FLOPs from shapes, (m, k) and (k, n)."""
    return 2 * a[0] * a[1] * b[1]


def _batched_product(_added: Sequence[int], a: Sequence[int], b: Sequence[int], **_others: Any) -> int:
    """FLOPs from shapes, (batch, m, k) and (batch, k, n)."""
    batch, m, k = a
    return 2 * batch * m * k * b[2]


class _Tally:
    """A Denoiser that counts its samples, by whether they carry a gradient."""

    def __init__(self, denoiser: UNetDenoiser):
        self._denoiser = denoiser
        self.modules, self.layout, self.sigmas = denoiser.modules, denoiser.layout, denoiser.sigmas
        self.prediction: Prediction = denoiser.prediction
        self.samples = {False: 0, True: 0}

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        self.samples[torch.is_grad_enabled()] += len(x)
        return self._denoiser(x, sigma, conditions)


def _inputs(denoiser: UNetDenoiser, pixels: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """One sample for the plain UNet: x, and (timesteps, text states, pooled)."""
    device, dtype, size = denoiser.device, denoiser.dtype, pixels // 8
    states, pooled = denoiser.text(0)
    x = torch.zeros(1, 4, size, size, device=device, dtype=dtype)
    return x, (torch.zeros(1, device=device), states[None], pooled[None])


@contextmanager
def _shifted(modules: Sequence[nn.Module], leaf: Tensor) -> Generator[None, None, None]:
    def hook(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + leaf

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
