"""One step of the training against Algorithm 3 written out slowly, and what must not change it.

`train` keeps latents and losses in float32 whatever the model computes in; with a float64 model its losses then agree
with the float64 reference to about 1e-6 and its gradients to about 1e-5; both are asserted with a margin.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from algorithm_3 import Reference, wide
from benchmarks.ldm_unet import ResBlock, TransformerBlock, UNet
from duolora_core import Gates
from duolora_core.merge.config import CycleRoute
from duolora_core.model.denoiser import Prediction
from tiny import TinyDenoiser, picture, tiny_unet
from training import BOTH_WEIGHTED, LAYERS, ROUTES, small_pair, trained
from worlds import World, random_gates, relative, world


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


CASES = [("eps", "authors"), ("eps", "differentiable"), ("v", "authors"), ("v", "differentiable")]


@pytest.mark.parametrize("size", [(8, 8), (8, 16)], ids=["same_size", "other_size"])
@pytest.mark.parametrize(("prediction", "route"), CASES)
def test_a_step_is_algorithm_3(
    unet: UNet, built: World, prediction: Prediction, route: CycleRoute, size: tuple[int, int]
) -> None:
    c, s, gates = picture(1), picture(2, size), random_gates(built.pair)
    config = replace(BOTH_WEIGHTED, cycle_route=route, seed=4)
    denoiser = TinyDenoiser(unet, prediction)
    outcome = trained(denoiser, built, config, gates, [c], [s])
    [report], [gradient] = outcome.reports, outcome.gradients
    reference = Reference(denoiser, built, c, s, config, report.sigma)

    leaf = wide(gates)
    expected = {name: float(value.detach()) for name, value in reference.losses(leaf).items()}
    total = reference.total(leaf)
    total.backward()
    assert {name: value for name, value in report.losses.items() if name != "total"} == pytest.approx(
        expected, rel=1e-4
    )
    assert report.losses["total"] == pytest.approx(float(total.detach()), rel=1e-4)
    assert leaf.values.grad is not None
    assert relative(gradient, leaf.values.grad) < 1e-3
    assert report.gradient_norm == pytest.approx(float(leaf.values.grad.norm()), rel=1e-3)


@pytest.mark.parametrize("route", ROUTES)
def test_gradient_is_the_finite_difference_of_the_reported_total(unet: UNet, built: World, route: CycleRoute) -> None:
    """Along random directions. The totals are float32, so the step is large and the tolerance 1 %."""
    gates, config = random_gates(built.pair, seed=5), replace(BOTH_WEIGHTED, cycle_route=route, seed=9)

    def total(values: Tensor) -> float:
        return trained(TinyDenoiser(unet), built, config, Gates(values, gates.slots)).reports[0].losses["total"]

    [gradient] = trained(TinyDenoiser(unet), built, config, gates).gradients
    size = float(gradient.norm())
    for seed in range(3):
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed))
        direction = direction / direction.norm() + gradient / size  # not orthogonal to the gradient
        step = 0.01
        slope = (total(gates.values + step * direction) - total(gates.values - step * direction)) / (2 * step)
        assert slope == pytest.approx(float(gradient @ direction), rel=0.01)


def test_one_noise_and_one_timestep_serve_both_pictures(unet: UNet, built: World) -> None:
    c, s, denoiser = picture(1), picture(2), TinyDenoiser(unet)
    [report] = trained(denoiser, built, replace(BOTH_WEIGHTED, seed=3), content=[c], style=[s]).reports
    reference = Reference(denoiser, built, c, s, BOTH_WEIGHTED, report.sigma)
    assert torch.allclose(reference.noise_c, reference.noise_s, atol=1e-4)
    assert 0.9 < float(reference.noise_c.std()) < 1.1
    assert {seen.sigma for seen in denoiser.seen} == {report.sigma}
    assert report.sigma in denoiser.sigmas.tolist()


@pytest.mark.parametrize(
    ("weight", "route", "forwarded", "with_gradient"),
    [(0.01, "authors", 8, 2), (0.01, "differentiable", 8, 4), (0.0, "authors", 4, 2), (0.0, "differentiable", 4, 2)],
)
def test_a_step_costs_eight_evaluations_and_half_of_them_without_the_cycle(
    unet: UNet, built: World, weight: float, route: CycleRoute, forwarded: int, with_gradient: int
) -> None:
    denoiser = TinyDenoiser(unet)
    [report] = trained(denoiser, built, replace(BOTH_WEIGHTED, cycle_weight=weight, cycle_route=route)).reports
    assert len(denoiser.seen) == forwarded
    assert sum(seen.with_gradient for seen in denoiser.seen) == with_gradient
    assert any(name.startswith("cycle") for name in report.losses) == (weight != 0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [(8, 8), (8, 16)], ids=["same_size", "other_size"])
def test_micro_batch_changes_nothing(unet: UNet, built: World, route: CycleRoute, size: tuple[int, int]) -> None:
    """But the order in which a product's terms are added: in float64 that is below what float32 losses can show."""
    outcomes = [
        trained(
            TinyDenoiser(unet),
            built,
            replace(BOTH_WEIGHTED, steps=2, cycle_route=route, micro_batch=micro_batch),
            style=[picture(2, size)],
        )
        for micro_batch in (1, 3, 8)
    ]
    for other in outcomes[1:]:
        assert relative(torch.stack(other.gradients), torch.stack(outcomes[0].gradients)) < 1e-6
        assert torch.allclose(other.gates.values, outcomes[0].gates.values, rtol=0.0, atol=1e-6)


@contextmanager
def checkpointing(unet: UNet) -> Generator[None, None, None]:
    """Transformer blocks and resnets forget their activations and run again in the backward pass."""
    blocks = [module for module in unet.modules() if isinstance(module, TransformerBlock | ResBlock)]
    try:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        yield
    finally:
        for block in blocks:
            del block.forward


@pytest.mark.parametrize("route", ROUTES)
def test_gradient_checkpointing_changes_nothing(unet: UNet, built: World, route: CycleRoute) -> None:
    """Gates are read when the forward is recomputed, so they must still be the batch's own then."""
    config = replace(BOTH_WEIGHTED, steps=2, cycle_route=route, micro_batch=2)
    plain = trained(TinyDenoiser(unet), built, config).gates.values
    with checkpointing(unet):
        again = trained(TinyDenoiser(unet), built, config).gates.values
    assert torch.equal(again, plain)


@pytest.mark.parametrize("clip", [1e-4, math.inf])
def test_clip_bounds_the_gradient_and_the_report_tells_it_unclipped(unet: UNet, built: World, clip: float) -> None:
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, clip=clip))
    norm = outcome.reports[0].gradient_norm
    assert norm > 1e-3
    assert float(outcome.gradients[0].norm()) == pytest.approx(min(norm, clip), rel=1e-3)


def test_half_precision_gradients_do_not_vanish() -> None:
    """Of a mean over 4·32·32 numbers each gets 2e-4 of the gradient; unscaled, fp16 would round most of it away."""
    quiet = world(LAYERS, ranks=(3, 3), seed=3)
    pictures = [picture(1, (32, 32))], [picture(2, (32, 32))]
    config = replace(BOTH_WEIGHTED, layer_prior_weight=0.0, reconstruction_weight=1e-2, cycle_weight=0.0)
    exact, half = (
        trained(TinyDenoiser(tiny_unet(dtype)), quiet, config, None, *pictures).gradients[0]
        for dtype in (torch.float64, torch.float16)
    )
    assert relative(half, exact) < 0.05
