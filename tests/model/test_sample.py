"""Sampling in the midst of a training: it follows Euler's method, and the training does not notice it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import attach, open_gates, train
from duolora_core.model.denoiser import Prediction
from duolora_core.model.sample import Guidance, sample, schedule
from tiny import TinyDenoiser, condition, picture
from training import BOTH_WEIGHTED, ROLES, small_pair
from worlds import World, random_gates

GUIDANCE = Guidance(condition(5), condition(6), 3.0)
NOISE = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def painted(unet: UNet, built: World, guidance: Guidance = GUIDANCE, branch: Any = "merge", steps: int = 4) -> Tensor:
    denoiser = TinyDenoiser(unet)
    with attach(denoiser.modules, built.pair, random_gates(built.pair)) as gated:
        return sample(denoiser, gated, branch, guidance, NOISE, steps)


def test_the_schedule_goes_from_the_highest_noise_level_to_none(unet: UNet) -> None:
    sigmas = TinyDenoiser(unet).sigmas
    found = schedule(sigmas, 6)
    assert found[0] == sigmas[-1] and found[-2] == sigmas[0] and found[-1] == 0
    assert torch.equal(found, found.sort(descending=True).values) and len(found) == 7
    assert schedule(sigmas, 1).tolist() == [float(sigmas[-1]), 0.0]


class Towards:
    """A denoiser whose estimate of x0 is always the same picture; it may depend on the condition."""

    def __init__(self, real: TinyDenoiser, targets: dict[str, float]):
        self.layout, self.modules, self.sigmas = real.layout, real.modules, real.sigmas
        self.prediction: Prediction = real.prediction
        self.targets = targets
        self.batches: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[str]) -> Tensor:
        self.batches.append(len(x))
        return torch.stack([torch.full_like(each, self.targets[c]) for each, c in zip(x, conditions, strict=True)])


@pytest.mark.parametrize(("cfg", "expected"), [(1.0, 2.0), (3.0, 4.0), (0.0, 1.0)])
def test_guidance_goes_beyond_the_positive_prompt(unet: UNet, built: World, cfg: float, expected: float) -> None:
    """x0 = negative + cfg · (positive - negative), one sample at a time, and no second one where cfg is 1."""
    denoiser = Towards(TinyDenoiser(unet), {"yes": 2.0, "no": 1.0})
    with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
        found = sample(denoiser, gated, "merge", Guidance("yes", "no", cfg), NOISE, 3)
    assert torch.allclose(found, torch.full_like(found, expected))
    assert denoiser.batches == [1] * (3 if cfg == 1.0 else 6)


def test_more_steps_follow_eulers_method(unet: UNet, built: World) -> None:
    """Against the same steps written as x + (following - sigma) · (x - x0) / sigma in float64."""
    denoiser = TinyDenoiser(unet)
    with attach(denoiser.modules, built.pair, random_gates(built.pair)) as gated:
        found = sample(denoiser, gated, "style", replace(GUIDANCE, cfg=1.0), NOISE, 5)
        sigmas = schedule(denoiser.sigmas, 5).double()
        x = NOISE.double() * (1 + sigmas[0].square()).sqrt()
        with torch.no_grad(), gated.branches(["style"]):
            for i in range(5):
                x0 = denoiser(x[None], sigmas[i : i + 1].float(), [GUIDANCE.positive])[0]
                x = x + (sigmas[i + 1] - sigmas[i]) * (x - x0) / sigmas[i]
    assert float((found - x).norm() / x.norm()) < 1e-4


def test_each_network_paints_its_own_picture(unet: UNet, built: World) -> None:
    pictures = [painted(unet, built, branch=branch) for branch in ("base", "content", "style", "sum", "merge")]
    for i, one in enumerate(pictures):
        assert one.isfinite().all() and one.shape == NOISE.shape
        assert all(float((one - other).norm() / one.norm()) > 1e-3 for other in pictures[:i])
    assert torch.equal(painted(unet, built), pictures[-1])


def test_a_training_with_pictures_in_between_is_the_same_bit_for_bit(unet: UNet, built: World) -> None:
    """Equal gates, losses and global random state, for a merge with the cycle and a pool."""
    config = replace(BOTH_WEIGHTED, steps=5, pool=2)

    def run(every: int) -> tuple[Tensor, list[float], Tensor]:
        denoiser, gates = TinyDenoiser(unet), open_gates(built.pair)
        torch.manual_seed(3)
        totals: list[float] = []
        with attach(denoiser.modules, built.pair, gates) as gated:
            for report in train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config):
                totals.append(report.losses["total"])
                if every and report.step % every == 0:
                    assert not sample(denoiser, gated, "merge", GUIDANCE, NOISE, 2).requires_grad
        return gates.values, totals, torch.get_rng_state()

    state = torch.get_rng_state()
    try:
        plain, pictured = run(0), run(2)
    finally:
        torch.set_rng_state(state)
    assert torch.equal(plain[0], pictured[0])
    assert plain[1] == pictured[1]
    assert torch.equal(plain[2], pictured[2])
