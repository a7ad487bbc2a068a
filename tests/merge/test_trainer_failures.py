"""A training that cannot go on: broken numbers stop it with the best gates, missing pictures before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import Picture, attach, make_merged, open_gates, train
from duolora_core.errors import SettingsError, TrainingError
from tiny import TinyDenoiser, picture
from training import BOTH_WEIGHTED, ROLES, small_pair, trained
from worlds import World


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def poisoned(calls: int, poison: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x0 as it is for some calls of the denoiser, then spoiled."""
    count = iter(range(10_000))
    return lambda x0: x0 if next(count) < calls else poison(x0)


def not_a_number(x0: Tensor) -> Tensor:
    return x0 * math.nan


def infinite(x0: Tensor) -> Tensor:
    return x0 * math.inf


def broken_gradient(x0: Tensor) -> Tensor:
    """The value is right, but the derivative of the root at 0 is infinite."""
    return x0 + (x0 * 0).sqrt()


@pytest.mark.parametrize("poison", [not_a_number, infinite, broken_gradient], ids=["nan", "inf", "gradient"])
@pytest.mark.parametrize("good_steps", [0, 2])
def test_a_loss_that_is_not_finite_stops_with_finite_gates(
    unet: UNet, built: World, poison: Callable[[Tensor], Tensor], good_steps: int
) -> None:
    config = replace(BOTH_WEIGHTED, steps=5, micro_batch=8)  # three calls a step
    gates = open_gates(built.pair)
    denoiser = TinyDenoiser(unet, spoil=poisoned(3 * good_steps, poison))
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        for _ in range(good_steps):
            next(steps)
        with pytest.raises(TrainingError, match=f"step {good_steps + 1}: .* not a finite number"):
            next(steps)
    assert bool(gates.values.isfinite().all()) and not gates.values.requires_grad
    if good_steps == 0:
        assert torch.equal(gates.values, torch.ones_like(gates.values))
    assert set(make_merged(built.pair, gates).fold().layers) == set(built.pair.names)


def test_a_stop_goes_back_to_the_best_gates(unet: UNet, built: World) -> None:
    """A step far too large makes the loss worse; when it then breaks, the gates from before that step are kept."""
    config = replace(BOTH_WEIGHTED, steps=5, learning_rate=3.0, micro_batch=8)
    gates = open_gates(built.pair)
    denoiser = TinyDenoiser(unet, spoil=poisoned(6, not_a_number))
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        first, second = next(steps), next(steps)
        assert second.losses["total"] > first.losses["total"]
        assert float((gates.values.detach() - 1).abs().max()) > 1
        with pytest.raises(TrainingError, match="best gates so far"):
            next(steps)
    assert torch.equal(gates.values, torch.ones_like(gates.values))


@pytest.mark.parametrize(("content", "style"), [((), (picture(1),)), ((picture(1),), ()), ((), ())])
def test_training_without_pictures_is_refused(
    unet: UNet, built: World, content: Sequence[Picture], style: Sequence[Picture]
) -> None:
    with pytest.raises(SettingsError, match="picture"):
        trained(TinyDenoiser(unet), built, BOTH_WEIGHTED, None, content, style)
