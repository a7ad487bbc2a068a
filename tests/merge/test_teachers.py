"""The targets of a merge: the samples of a seed, strata of timesteps, and a pool whose teachers are asked once."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import PRESETS, Gates, MergeConfig, attach, make_merged, open_gates, train
from duolora_core.merge.config import CycleRoute, Timesteps
from duolora_core.merge.gated import GatedLora
from duolora_core.merge.teachers import DistillationBatch, distillation_batches, in_stratum
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from gradients import gradients
from tiny import TinyDenoiser, hooks, inputs, picture, run
from training import BOTH_WEIGHTED, ROLES, ROUTES, small_pair, trained
from worlds import World, relative

CONTENT, STYLE = [picture(1), picture(3)], [picture(2), picture(4)]
OTHER_SIZE = [picture(2, (8, 16))]
KINDS: tuple[Timesteps, ...] = ("uniform", "stratified")
QUICK = replace(BOTH_WEIGHTED, cycle_weight=0.0)
LARGE = MemoryPlanner([MemoryPlan(8, "none")])


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


@contextmanager
def attached(denoiser: TinyDenoiser, built: World) -> Generator[GatedLora, None, None]:
    with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
        yield gated


def timesteps(unet: UNet, built: World, config: MergeConfig) -> list[int]:
    """The timestep of every batch of a training."""
    denoiser = TinyDenoiser(unet)
    with attached(denoiser, built) as gated:
        batches = distillation_batches(denoiser, gated, CONTENT, STYLE, config, LARGE)
        sigmas = [batch.sigma for batch in islice(batches, config.steps)]
    return denoiser.timesteps(torch.stack(sigmas)).tolist()


def test_a_seed_means_the_draws_that_it_has_always_meant(unet: UNet, built: World) -> None:
    """One stream per seed: content picture, style picture, timestep, one noise for both, and so on, uniformly."""
    denoiser, generator = TinyDenoiser(unet), torch.Generator().manual_seed(6)
    config = replace(QUICK, steps=4, seed=6)
    with attached(denoiser, built) as gated:
        for batch in distillation_batches(denoiser, gated, CONTENT, STYLE, config, LARGE):
            c, s = (side[int(torch.randint(2, (), generator=generator))] for side in (CONTENT, STYLE))
            sigma = denoiser.sigmas[torch.randint(1000, (), generator=generator)]
            noise = torch.randn(4, 8, 8, generator=generator)
            (for_content, _), (for_style, _) = batch.students
            assert torch.equal(batch.sigma, sigma)
            assert torch.equal(for_content.x, c.latent + sigma * noise) and for_content.condition is c.own
            assert torch.equal(for_style.x, s.latent + sigma * noise) and for_style.condition is s.own


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", [3, 50])
def test_a_pool_as_large_as_the_steps_is_the_exact_training(
    unet: UNet, built: World, route: CycleRoute, kind: Timesteps, pool: int
) -> None:
    config = replace(BOTH_WEIGHTED, steps=3, cycle_route=route, timesteps=kind)
    exact, pooled = (
        trained(TinyDenoiser(unet), built, replace(config, pool=size), None, CONTENT, STYLE) for size in (0, pool)
    )
    assert torch.equal(pooled.gates.values, exact.gates.values)
    assert [report.losses for report in pooled.reports] == [report.losses for report in exact.reports]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_reused_batch_is_the_one_that_would_be_made_anew(
    unet: UNet, built: World, route: CycleRoute, kind: Timesteps
) -> None:
    """Bit for bit, at gates that have moved since; and every round brings every draw once.

    An exact training of two steps from the gates of any later step, at a learning rate of 0, measures both draws anew.
    """
    config = replace(BOTH_WEIGHTED, steps=6, pool=2, seed=2, cycle_route=route, timesteps=kind)
    denoiser, gates = TinyDenoiser(unet), open_gates(built.pair)
    moving = [gates.values]
    with gradients() as reused, attach(denoiser.modules, built.pair, gates) as gated:
        for _ in train(denoiser, gated, CONTENT, STYLE, ROLES, config):
            moving.append(gates.values.detach().clone())
    visited: list[int] = []
    for values, gradient in zip(moving[:-1], reused, strict=True):
        anew = replace(config, steps=2, pool=0, learning_rate=0.0)
        start = Gates(values, gates.slots)
        candidates = trained(TinyDenoiser(unet), built, anew, start, CONTENT, STYLE).gradients
        visited += [i for i, candidate in enumerate(candidates) if torch.equal(candidate, gradient)]
    assert [sorted(visited[i : i + 2]) for i in (0, 2, 4)] == [[0, 1]] * 3
    assert len(visited) == 6


@pytest.mark.parametrize(
    ("weight", "route", "teachers", "students"),
    [(0.7, "authors", 6, 2), (0.7, "differentiable", 4, 4), (0.0, "authors", 2, 2)],
)
def test_each_teacher_is_evaluated_once_and_when_its_turn_comes(
    unet: UNet, built: World, weight: float, route: CycleRoute, teachers: int, students: int
) -> None:
    """So that the first report comes as soon as in an exact training, and none later than its steps."""
    config = replace(BOTH_WEIGHTED, steps=7, pool=3, cycle_weight=weight, cycle_route=route)
    denoiser, gates = TinyDenoiser(unet), open_gates(built.pair)
    with attach(denoiser.modules, built.pair, gates) as gated:
        for report in train(denoiser, gated, CONTENT, STYLE, ROLES, config):
            with_gradient = sum(seen.with_gradient for seen in denoiser.seen)
            assert with_gradient == students * report.step
            assert len(denoiser.seen) - with_gradient == teachers * min(report.step, 3)


def test_rounds_bring_the_same_draws_in_other_orders(unet: UNet, built: World) -> None:
    found = timesteps(unet, built, replace(QUICK, steps=24, pool=4))
    rounds = [tuple(found[i : i + 4]) for i in range(0, 24, 4)]
    assert {tuple(sorted(each)) for each in rounds} == {tuple(sorted(rounds[0]))}
    assert len(set(rounds[0])) == 4 and len(set(rounds)) > 2


@pytest.mark.parametrize(("steps", "pool", "strata"), [(8, 0, 8), (8, 100, 8), (12, 4, 4), (1, 0, 1)])
def test_stratified_timesteps_meet_every_stratum_once(
    unet: UNet, built: World, steps: int, pool: int, strata: int
) -> None:
    config = replace(QUICK, steps=steps, pool=pool, timesteps="stratified")
    orders = set[tuple[int, ...]]()
    for seed in range(3):
        found = timesteps(unet, built, replace(config, seed=seed))
        order = tuple(timestep * strata // 1000 for timestep in found)
        rounds = [sorted(order[i : i + strata]) for i in range(0, steps, strata)]
        assert rounds == [list(range(strata))] * len(rounds)
        orders.add(order)
    assert strata == 1 or len(orders) > 1
    uniform = [timesteps(unet, built, replace(config, seed=seed, timesteps="uniform")) for seed in range(3)]
    assert strata == 1 or any(len({t * strata // 1000 for t in found}) < strata for found in uniform)


@pytest.mark.parametrize(("total", "strata"), [(1000, 1), (1000, 8), (1000, 30), (7, 3), (5, 12)])
def test_all_strata_together_are_uniform(total: int, strata: int) -> None:
    parts = [[in_stratum(t, total, i, strata) for t in range(total)] for i in range(strata)]
    assert Counter(chain(*parts)) == {t: strata for t in range(total)}
    ends = [(part[0], part[-1]) for part in parts]
    assert ends == [(i * total // strata, math.ceil((i + 1) * total / strata) - 1) for i in range(strata)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_everything_and_micro_batch_nothing(unet: UNet, built: World, kind: Timesteps) -> None:
    config = replace(BOTH_WEIGHTED, steps=5, pool=2, timesteps=kind)
    one, again, other, slow = (
        trained(TinyDenoiser(unet), built, replace(config, seed=seed, micro_batch=size), None, CONTENT, OTHER_SIZE)
        for seed, size in ((0, 4), (0, 4), (1, 4), (0, 1))
    )
    assert torch.equal(again.gates.values, one.gates.values)
    assert float((other.gates.values - one.gates.values).abs().max()) > 1e-3
    assert relative(torch.stack(slow.gradients), torch.stack(one.gradients)) < 1e-4
    assert torch.allclose(slow.gates.values, one.gates.values, atol=1e-4)


def test_leaving_in_a_later_round_leaves_the_model_clean(unet: UNet, built: World) -> None:
    config, gates, denoiser = replace(BOTH_WEIGHTED, steps=9, pool=2), open_gates(built.pair), TinyDenoiser(unet)
    before = run(unet, *inputs(2))
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, CONTENT, STYLE, ROLES, config)
        for _ in range(5):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
    expected = trained(TinyDenoiser(unet), built, replace(config, steps=5), None, CONTENT, STYLE).gates.values
    assert torch.equal(gates.values, expected) and not gates.values.requires_grad
    assert hooks(unet) == 0 and torch.equal(run(unet, *inputs(2)), before)
    assert set(make_merged(built.pair, gates).fold().layers) == set(built.pair.names)


def test_reports_of_reused_batch_have_the_same_terms(unet: UNet, built: World) -> None:
    exact, pooled = (
        trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=4, pool=pool)).reports for pool in (0, 1)
    )
    assert [list(report.losses) for report in pooled] == [list(report.losses) for report in exact]
    assert [(report.step, report.steps) for report in pooled] == [(i, 4) for i in range(1, 5)]
    assert len({report.sigma for report in pooled}) == 1 < len({report.sigma for report in exact})
    assert pooled[-1].losses["total"] < pooled[0].losses["total"]


@pytest.mark.parametrize(("pool", "kept"), [(0, False), (4, False), (2, True)])
def test_only_batch_that_come_back_are_kept(unet: UNet, built: World, pool: int, kept: bool) -> None:
    denoiser = TinyDenoiser(unet)
    with attached(denoiser, built) as gated:
        batches = distillation_batches(denoiser, gated, CONTENT, STYLE, replace(QUICK, steps=4, pool=pool), LARGE)
        first = weakref.ref(next(batches))
        next(batches)
        gc.collect()
        assert (first() is not None) == kept


@pytest.mark.parametrize("route", ROUTES)
def test_a_batch_holds_six_latents(unet: UNet, built: World, route: CycleRoute) -> None:
    denoiser = TinyDenoiser(unet)
    with attached(denoiser, built) as gated:
        batch = next(
            distillation_batches(denoiser, gated, CONTENT, STYLE, replace(BOTH_WEIGHTED, cycle_route=route), LARGE)
        )
    assert sum(tensor.untyped_storage().nbytes() for tensor in latents(batch)) == 6 * 4 * 8 * 8 * 4


def latents(batch: DistillationBatch) -> Sequence[Tensor]:
    """Every tensor of a picture's size that it keeps alive."""
    every = chain.from_iterable(
        (sample.x, *(target.output for target in targets)) for sample, targets in batch.students
    )
    return list({tensor.data_ptr(): tensor for tensor in every}.values())


def test_the_preset_fast_is_the_default_at_a_third_of_the_work(unet: UNet, built: World) -> None:
    """Counted at the denoiser: an evaluation with gradient costs two without, and exact steps cost alike."""

    def cost(config: MergeConfig) -> int:
        denoiser = TinyDenoiser(unet)
        trained(denoiser, built, config)
        return sum(1 + seen.with_gradient for seen in denoiser.seen)

    exact, fast = PRESETS["default"], PRESETS["fast"]
    assert cost(replace(exact, steps=3)) == 3 * 6
    assert 3 * cost(fast) <= exact.steps * 6
    speed = {"steps": fast.steps, "pool": fast.pool, "timesteps": fast.timesteps, "learning_rate": fast.learning_rate}
    assert fast == replace(exact, **speed)
