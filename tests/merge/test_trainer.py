"""A training as its caller sees it: what decides it, what it leaves alone, and what holds wherever one leaves it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.ldm_unet import UNet
from duolora_core import (
    PRESETS,
    Gates,
    MergeConfig,
    attach,
    initial_gates,
    layer_roles,
    make_merged,
    open_gates,
    starting_gates,
    train,
)
from tiny import TinyDenoiser, hooks, inputs, layout, picture, run
from training import BOTH_WEIGHTED, LAYERS, ROLES, small_pair, trained
from worlds import World, world


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def test_a_seed_decides_everything(unet: UNet, built: World) -> None:
    pictures = [picture(1), picture(3)], [picture(2), picture(4)]
    runs = [
        trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=2, seed=seed), None, *pictures).gates.values
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert float((runs[0] - runs[2]).abs().max()) > 1e-3


def test_global_random_state_is_neither_read_nor_moved(unet: UNet, built: World) -> None:
    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = trained(TinyDenoiser(unet), built, BOTH_WEIGHTED).gates.values
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(trained(TinyDenoiser(unet), built, BOTH_WEIGHTED).gates.values, one)
    finally:
        torch.set_rng_state(state)


def test_every_picture_is_drawn_sooner_or_later(unet: UNet, built: World) -> None:
    content, style = [picture(i) for i in range(3)], [picture(10 + i) for i in range(2)]
    denoiser = TinyDenoiser(unet)
    trained(denoiser, built, replace(BOTH_WEIGHTED, steps=12, cycle_weight=0.0), None, content, style)
    drawn = {id(seen.condition) for seen in denoiser.seen}
    assert drawn == {id(p.own) for p in (*content, *style)}


def test_training_lowers_the_loss(unet: UNet, built: World) -> None:
    """The mean reconstruction over fixed draws falls below the plain sum's; a learning rate of 0 only measures."""
    alone = replace(BOTH_WEIGHTED, layer_prior_weight=0.0, cycle_weight=0.0)

    def measured(gates: Gates) -> float:
        draws = [replace(alone, learning_rate=0.0, seed=100 + i) for i in range(4)]
        return sum(trained(TinyDenoiser(unet), built, draw, gates).reports[0].losses["total"] for draw in draws)

    start = open_gates(built.pair)
    config = replace(alone, steps=25, learning_rate=0.02, seed=1)
    outcome = trained(TinyDenoiser(unet), built, config, start)
    assert measured(outcome.gates) < 0.8 * measured(start)


def test_the_only_thing_trained_is_the_gates(unet: UNet, built: World) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    factors = {name: low_rank.delta() for name, low_rank in built.pair.content.items()}
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert all(torch.equal(built.pair.content[name].delta(), delta) for name, delta in factors.items())
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert bool((outcome.gates.values != 1).all())


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_leaving_after_any_step_keeps_what_was_reached(unet: UNet, built: World, taken: int) -> None:
    config, gates, denoiser = replace(BOTH_WEIGHTED, steps=3), open_gates(built.pair), TinyDenoiser(unet)
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        for _ in range(taken):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
    expected = trained(TinyDenoiser(unet), built, replace(config, steps=taken)) if taken else None
    assert torch.equal(gates.values, expected.gates.values if expected else torch.ones_like(gates.values))
    assert not gates.values.requires_grad
    assert hooks(unet) == 0
    folded = make_merged(built.pair, gates).fold()
    assert set(folded.layers) == set(built.pair.names)


def test_a_merge_can_be_taken_between_two_steps(unet: UNet, built: World) -> None:
    """A preview: `make_merged` snapshots, and running the attached model in between does not disturb the training."""
    config, denoiser, gates = replace(BOTH_WEIGHTED, steps=2), TinyDenoiser(unet), open_gates(built.pair)
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        next(steps)
        snapshot = make_merged(built.pair, gates)
        kept = {name: low_rank.delta().clone() for name, low_rank in snapshot.fold().layers.items()}
        with torch.no_grad(), gated.branches(["merge"]):
            run(unet, *inputs(1))
        next(steps)
        steps.close()  # type: ignore[attr-defined]
    assert all(torch.equal(snapshot.fold().layers[name].delta(), delta) for name, delta in kept.items())
    assert torch.equal(gates.values, trained(TinyDenoiser(unet), built, config).gates.values)


def test_reports_count_steps_and_the_total_is_the_weighted_sum(unet: UNet, built: World) -> None:
    config, built_gates = replace(BOTH_WEIGHTED, steps=3), len(open_gates(built.pair).values)
    reports = trained(TinyDenoiser(unet), built, config).reports
    assert [(report.step, report.steps) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    for report in reports:
        cycle = report.losses["cycle_content"] + report.losses["cycle_style"]
        reconstruction = report.losses["reconstruction_content"] + report.losses["reconstruction_style"]
        assert report.losses["total"] == pytest.approx(
            config.cycle_weight * cycle
            + config.reconstruction_weight * reconstruction
            + config.layer_prior_weight * report.losses["layer_prior"],
            rel=1e-5,
        )
        assert report.seconds > 0
        assert sum(block.content_rank + block.style_rank for block in report.blocks) == built_gates
    assert reports[0].blocks != reports[-1].blocks


def test_starting_gates_are_the_initial_ones_of_the_settings_and_follow_the_seed(built: World) -> None:
    config = MergeConfig(initialisation="random", content_threshold=0.6, style_threshold=0.3, seed=5)
    generator = torch.Generator().manual_seed(5)
    expected = initial_gates(built.pair, ROLES, "random", 0.6, 0.3, generator).values
    assert torch.equal(starting_gates(built.pair, ROLES, config).values, expected)
    assert not torch.equal(starting_gates(built.pair, ROLES, replace(config, seed=6)).values, expected)
    assert torch.equal(starting_gates(built.pair, ROLES, MergeConfig()).values, open_gates(built.pair).values)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_run(unet: UNet, name: str) -> None:
    config = replace(PRESETS[name], steps=2)
    built = world(LAYERS, ranks=(4, 4), basis=config.basis)
    roles = layer_roles(layout(), config.layer_prior)
    start = starting_gates(built.pair, roles, config)
    outcome = trained(TinyDenoiser(unet), built, config, start)
    assert len(outcome.reports) == 2
    assert all(math.isfinite(value) for report in outcome.reports for value in report.losses.values())
    assert float((outcome.gates.values - start.values).abs().max()) == pytest.approx(2 * config.learning_rate, rel=0.3)
