"""What the speed benchmark counts: FLOPs and bytes against numbers by hand, and our step against its limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu import ENTRIES, matmul_flops_per_second, measured, summary
from benchmarks.ldm_unet import UNetConfig
from benchmarks.random_sdxl import UNetDenoiser, random_pair, random_unet
from benchmarks.speed.contestants import CONTESTANTS, EVERY_LOSS, Task
from benchmarks.speed.flops import Evaluations, evaluations, flops, limit_flops, meta_task, prices, step_flops
from benchmarks.speed.kernels import LORA_SETS, kernels, step_kernels
from benchmarks.speed.live_memory import fused_attention
from benchmarks.speed.memory import peak_bytes, step_peak_bytes
from benchmarks.speed.meta import ReadingOnes
from duolora_core import MergeConfig
from duolora_core.model.memory.estimate import CHECKPOINTED_LEVELS, Checkpointing

ROOT = Path(__file__).parent.parent.parent
RANK = 3
MICRO = UNetConfig(
    channels=8,
    multipliers=(1, 2),
    down_depths=((0,), (1,)),
    mid_depth=1,
    up_depths=((0, 0), (1, 1)),
    context=12,
    pooled=8,
    head=4,
    groups=4,
)


@pytest.fixture(scope="module")
def micro() -> Task:
    return meta_task(64, RANK, MICRO)


def test_a_linear_counts_two_flops_a_product() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7)
    forward = 2 * 5 * 7 * 3

    def there_and_back() -> None:
        F.linear(x, weight).sum().backward()

    assert flops(lambda: F.linear(x, weight)) == forward
    assert flops(there_and_back) == 2 * forward  # the weight is frozen: one product back
    weight.requires_grad_()
    assert flops(there_and_back) == 3 * forward


def test_an_in_place_product_counts_like_any_other() -> None:
    a, b, c = torch.randn(2, 5, 3), torch.randn(2, 5, 7), torch.randn(2, 7, 3)
    assert flops(lambda: a.baddbmm_(b, c)) == flops(lambda: a.baddbmm(b, c)) == 2 * 2 * 5 * 7 * 3


def test_a_meta_tensor_reads_as_one_inside_and_not_at_all_outside() -> None:
    nothing = torch.zeros(2, device="meta")
    with ReadingOnes():
        assert float(nothing.sum()) == 1.0 and int(nothing[0].long()) == 1
        assert torch.equal(nothing.cpu(), torch.ones(2))
        assert torch.equal(torch.zeros(2).cpu(), torch.zeros(2))
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(nothing[0])


class Touched:
    """How many tokens each adapted layer saw in one forward of one sample."""

    def __init__(self, task: Task):
        self.tokens: dict[str, int] = {}
        handles = [task.denoiser.modules[name].register_forward_hook(self._note(name)) for name in task.pair.names]
        with torch.no_grad():
            self.forward = flops(
                lambda: task.denoiser(torch.zeros(1, 4, 8, 8, device="meta"), task.denoiser.sigmas[:1], [7])
            )
        for handle in handles:
            handle.remove()

    def _note(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
            self.tokens[name] = args[0].shape[:-1].numel()

        return hook


def test_a_teacher_costs_the_forward_and_its_own_thin_products(micro: Task) -> None:
    """So nothing is as large as a weight, and the other LoRA is not run."""
    touched, layers = Touched(micro), micro.denoiser.layout.layers
    thin = sum(2 * tokens * RANK * sum(layers[name].shape) for name, tokens in touched.tokens.items())
    assert len(touched.tokens) == len(micro.pair.names)
    assert prices(micro).teacher == touched.forward + thin


def test_a_student_has_no_gradient_of_a_weight(micro: Task) -> None:
    """Two thin products forward and, at most, two back: what is above the limit is LoRAs alone."""
    touched, layers = Touched(micro), micro.denoiser.layout.layers
    thin = sum(2 * tokens * 2 * RANK * sum(layers[name].shape) for name, tokens in touched.tokens.items())
    free = (limit_flops(micro) - 6 * touched.forward) // 2
    assert free + thin < prices(micro).student <= free + 2 * thin


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_a_step_is_six_teachers_and_two_students(micro: Task, micro_batch: int) -> None:
    task = replace(micro, config=replace(micro.config, micro_batch=micro_batch))
    price = prices(micro)
    assert step_flops("exact", task) == 6 * price.teacher + 2 * price.student


def test_checkpointing_computes_a_student_at_most_once_more(micro: Task) -> None:
    plain, part, saving = (prices(replace(micro, checkpointing=mode)) for mode in CHECKPOINTED_LEVELS)
    touched, layers = Touched(micro), micro.denoiser.layout.layers
    thin = sum(2 * tokens * 2 * RANK * sum(layers[name].shape) for name, tokens in touched.tokens.items())
    assert saving.teacher == plain.teacher
    # this UNet has no level below half resolution, so part of the blocks are all of them
    assert plain.student < part.student == saving.student <= plain.student + touched.forward + thin


@pytest.mark.slow
def test_an_exact_step_of_sdxl_is_at_most_seven_percent_above_the_limit() -> None:
    task = meta_task(512)
    price = prices(task)
    assert 1 < (6 * price.teacher + 2 * price.student) / limit_flops(task) < 1.07


def test_evaluations_are_those_of_the_training() -> None:
    assert evaluations(replace(EVERY_LOSS, steps=3)) == Evaluations(teachers=18, students=6)
    without_cycle = evaluations(MergeConfig(steps=2, cycle_weight=0.0))
    assert (without_cycle.teachers, without_cycle.students) == (4, 4)


def test_live_bytes_by_hand() -> None:
    def work() -> None:
        a = torch.zeros(1000)  # 4000 bytes
        b = a * 2  # 8000
        c = b + 1  # 12000
        del a  # 8000
        b.add_(c)
        view = c.view(10, 100)
        del b, c  # 4000: the view keeps c
        view.sum()  # 4004

    assert peak_bytes(work, "cpu") == 12000
    assert peak_bytes(work, "meta") == 0


def test_bytes_kept_for_backward_count_until_it_is_done() -> None:
    x = torch.randn(100, requires_grad=True)

    def work() -> None:
        y = x.exp().exp()  # both results are kept
        y.sum().backward()

    assert peak_bytes(work, "cpu") >= 3 * 400
    kept = x.detach()
    assert peak_bytes(lambda: kept.exp().exp(), "cpu") == 800


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("checkpointing", CHECKPOINTED_LEVELS)
def test_the_meta_device_has_the_peak_of_a_real_one(name: str, checkpointing: Checkpointing) -> None:
    """At a size where what only the CPU holds (noise, pictures, reports) is small."""
    denoiser = UNetDenoiser(random_unet(MICRO, torch.float32))
    real = Task(denoiser, random_pair(denoiser.layout, RANK, "factors"), pixels=256, checkpointing=checkpointing)
    empty = replace(real, denoiser=UNetDenoiser(random_unet(MICRO, torch.float32, "meta")))

    def work() -> None:
        with CONTESTANTS[name](real) as step:
            step()

    assert step_peak_bytes(name, empty) == pytest.approx(peak_bytes(work, "cpu"), rel=0.1)


def test_kernels_by_hand() -> None:
    x, weight = torch.randn(2, 5, 7), torch.randn(3, 7, requires_grad=True)

    def work() -> None:
        y = F.linear(x, weight).view(-1)[3:]  # mm
        y.mul_(2).sum().backward()  # mul, sum, ones_like; mul; slice and mm back; all else are views

    assert kernels(work, "meta").total() == 0
    started = kernels(work, "cpu")
    assert started["mm"] == 2 and started["mul_"] + started["mul"] == 2 and started["sum"] == 1
    assert not {"view", "t", "slice", "expand", "detach"} & started.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("loras", "most"), [("attention", 11_000), ("linears", 12_750)])
def test_kernels_of_a_default_step_of_sdxl(loras: str, most: int) -> None:
    """15,546 and 19,219 when every branch was multiplied, every layer converted its gates, and views were changed."""
    assert 9_000 < step_kernels(LORA_SETS[loras]).total() <= most


def test_fused_attention_holds_no_scores() -> None:
    q = torch.empty(1, 1, 512, 8, device="meta")

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, q, q)

    with fused_attention():
        assert attend().shape == q.shape
        assert peak_bytes(attend, "meta") < 512 * 512 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_the_gpu_benchmark_says_in_one_line_what_it_lacks() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1 and "needs a CUDA device" in ended.stderr


def test_the_gpu_benchmark_adds_up_on_a_cpu() -> None:
    denoiser = UNetDenoiser(random_unet(MICRO, torch.float32))
    task = Task(denoiser, random_pair(denoiser.layout, RANK, "factors"), pixels=64)
    ceiling = matmul_flops_per_second(torch.device("cpu"), torch.float32, size=64, rounds=2)
    rows = measured(task, ceiling, rounds=1)
    result = summary(rows)
    exact, saving, authors = (
        next(row for row in rows if row.entry == name) for name in ("exact", "exact checkpointed", "authors")
    )
    assert exact.tflop * 1e12 == step_flops("exact", meta_task(64, RANK, MICRO))
    assert exact.utilisation == pytest.approx(exact.tflop * 1e12 / exact.seconds / ceiling)
    assert saving.peak_gb < exact.peak_gb and saving.tflop > exact.tflop
    assert result["wall_authors_over_exact"] == {"64": round(authors.seconds / exact.seconds, 3)}
    assert [row["entry"] for row in result["rows"]] == list(ENTRIES)
