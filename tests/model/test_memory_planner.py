"""Stepping down when memory runs out: the same step again, bit for bit as if it had started under the smaller plan."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import Gates, StepReport, attach, open_gates, train
from duolora_core.errors import OutOfMemoryError
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from tiny import TinyDenoiser, hooks, picture
from training import BOTH_WEIGHTED, ROLES, small_pair, trained
from worlds import World, relative

LARGE, SMALL = MemoryPlan(8, "none"), MemoryPlan(1, "none")
CONFIG = replace(BOTH_WEIGHTED, steps=3, seed=6)


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def ran_out() -> torch.cuda.OutOfMemoryError:
    return torch.cuda.OutOfMemoryError("Tried to allocate more than there is.")


def in_forward(x0: Tensor) -> Tensor:
    raise ran_out()


def in_backward(x0: Tensor) -> Tensor:
    def fail(_: Tensor) -> None:
        raise ran_out()

    x0.register_hook(fail)
    return x0


def at_calls(calls: Sequence[int], failure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Spoils the n-th forwards of a denoiser, counted from 0."""
    count = iter(range(10_000))
    return lambda x0: failure(x0) if next(count) in calls else x0


def run(
    unet: UNet, built: World, plans: MemoryPlanner, spoil: Callable[[Tensor], Tensor] = lambda x0: x0
) -> tuple[Gates, list[StepReport], TinyDenoiser]:
    gates, denoiser = open_gates(built.pair), TinyDenoiser(unet, spoil=spoil)
    with attach(denoiser.modules, built.pair, gates) as gated:
        reports = list(train(denoiser, gated, [picture(1)], [picture(2)], ROLES, CONFIG, plans))
    return gates, reports, denoiser


# Under LARGE a step has three forwards: four teachers, two teachers of the second hop, two students.
FAILURES = pytest.mark.parametrize(
    ("call", "failure"), [(0, in_forward), (1, in_forward), (2, in_forward), (2, in_backward)]
)


@FAILURES
def test_a_training_that_steps_down_is_the_one_that_started_so(
    unet: UNet, built: World, call: int, failure: Callable[[Tensor], Tensor]
) -> None:
    expected, expected_reports, _ = run(unet, built, MemoryPlanner([SMALL]))
    plans = MemoryPlanner([LARGE, SMALL])
    gates, reports, denoiser = run(unet, built, plans, at_calls([call], failure))
    for report, other in zip(reports, expected_reports, strict=True):
        assert report.losses == pytest.approx(other.losses, rel=1e-5)
    assert relative(gates.values, expected.values) < 1e-5
    if call < 2:  # then the teachers were asked under the smaller plan, too
        assert torch.equal(gates.values, expected.values)
    assert plans.current == SMALL and len(plans.notes) == 1
    assert torch.equal(denoiser.seen[0].x, denoiser.seen[(4, 6, 8)[call]].x)  # the same noise once more


@FAILURES
def test_later_on_nothing_is_lost(unet: UNet, built: World, call: int, failure: Callable[[Tensor], Tensor]) -> None:
    """Memory runs out in the second step: every step is taken once, with the losses that it would have had."""
    expected, expected_reports, _ = run(unet, built, MemoryPlanner([SMALL]))
    gates, reports, _ = run(unet, built, MemoryPlanner([LARGE, SMALL]), at_calls([3 + call], failure))
    assert [report.step for report in reports] == [1, 2, 3]
    assert relative(gates.values, expected.values) < 1e-5
    for report, other in zip(reports, expected_reports, strict=True):
        assert report.losses == pytest.approx(other.losses, rel=1e-5)


def test_each_level_is_tried_once_and_then_the_mends_are_named(unet: UNet, built: World) -> None:
    adopted: list[MemoryPlan] = []
    ladder = [LARGE, SMALL, MemoryPlan(8, "all"), MemoryPlan(1, "all")]
    plans = MemoryPlanner(ladder, on_change=adopted.append)
    gates, denoiser = open_gates(built.pair), TinyDenoiser(unet, spoil=in_forward)
    with (
        attach(denoiser.modules, built.pair, gates) as gated,
        pytest.raises(OutOfMemoryError, match=r"micro-batch 1 with gradient checkpointing.*resolution.*fp8"),
    ):
        list(train(denoiser, gated, [picture(1)], [picture(2)], ROLES, CONFIG, plans))
    assert adopted == ladder
    assert torch.equal(gates.values, torch.ones_like(gates.values)) and not gates.values.requires_grad
    assert hooks(unet) == 0


def test_without_a_plan_the_micro_batch_of_the_config_holds(unet: UNet, built: World) -> None:
    expected, _, _ = run(unet, built, MemoryPlanner([MemoryPlan(2, "none")]))
    outcome = trained(TinyDenoiser(unet), built, replace(CONFIG, micro_batch=2))
    assert torch.equal(outcome.gates.values, expected.values)
    with pytest.raises(OutOfMemoryError):
        trained(TinyDenoiser(unet, spoil=in_forward), built, CONFIG)


def test_other_errors_pass_through_and_change_nothing() -> None:
    def broken(plan: MemoryPlan) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    plans = MemoryPlanner([LARGE, SMALL])
    with pytest.raises(RuntimeError, match="shapes"):
        plans.run_with_oom_retry(broken)
    assert plans.current == LARGE and plans.notes == []


def test_what_counts_as_out_of_memory_is_the_hosts_to_say() -> None:
    def full(plan: MemoryPlan) -> int:
        if plan == LARGE:
            raise OSError("full")
        return plan.micro_batch

    assert (
        MemoryPlanner([LARGE, SMALL], out_of_memory=lambda error: isinstance(error, OSError)).run_with_oom_retry(full)
        == 1
    )


def test_the_failed_attempt_is_gone_before_the_next_plan_is_adopted() -> None:
    """Its activations hang on the frames of the exception: while that lives, no memory comes back."""
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def work(plan: MemoryPlan) -> None:
        activations = torch.zeros(1)
        held.append(weakref.ref(activations))
        if plan == LARGE:
            raise ran_out()

    MemoryPlanner(
        [LARGE, SMALL], on_change=lambda plan: alive.append(sum(ref() is not None for ref in held))
    ).run_with_oom_retry(work)
    assert len(held) == 2 and alive == [0, 0]
