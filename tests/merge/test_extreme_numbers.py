"""Numbers at the edge of what is met: every precision, the last timestep, strengths from 0 to 10,000, unequal LoRAs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from algorithm_3 import Reference, wide
from benchmarks.ldm_unet import UNet
from duolora_core import Gates, LowRank, kohya_state_dict, lora_from_tensors, make_merged, make_pair, match_to_model
from duolora_core.errors import TrainingError
from duolora_core.merge.config import CycleRoute
from duolora_core.merge.overlap import block_overlaps
from duolora_core.merge.stack import Basis
from duolora_core.merge.statistics import block_statistics
from duolora_core.model.denoiser import Prediction
from duolora_core.report import findings
from factors import random_factors, shapes_of
from tiny import TinyDenoiser, layout, picture, tiny_unet
from training import BOTH_WEIGHTED, LAYERS, ROLES, ROUTES, Outcome, small_pair, trained
from worlds import World, placed_lora, random_gates, relative

TERMINAL_SIGMA = 4518.0
"""The highest noise level of a model with zero terminal SNR, as ComfyUI rescales SDXL's schedule."""

STRENGTHS = (0.0, -1.0, 1e-6, 1e4)
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.02}
"""How far the losses of a first step may be from float64's, relatively; the rounding of one forward."""


def unequal(content: float, style: float, basis: Basis = "svd") -> World:
    """The small world with its LoRAs at these strengths."""
    sides = [random_factors(shapes_of(names), 3, seed) for names, seed in ((LAYERS[:-1], 1), (LAYERS[1:], 2))]
    concepts = [
        placed_lora(side, strength, f"{name}.safetensors")
        for side, strength, name in zip(sides, (content, style), ("content", "style"), strict=True)
    ]
    return World(sides[0], sides[1], make_pair(concepts[0], concepts[1], layout(), basis))


def words(built: World, outcome: Outcome) -> str:
    """What the report says of a training."""
    losses = {"total": [report.losses["total"] for report in outcome.reports]}
    blocks = block_statistics(outcome.gates, built.pair, ROLES)
    return "\n".join(each.text for each in findings(losses, blocks, block_overlaps(outcome.gates, built.pair)))


@pytest.mark.parametrize("basis", ["svd", "factors"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_lora_at_an_extreme_strength_trains_and_is_saved_or_the_training_is_refused(
    unet: UNet, strength: float, basis: Basis
) -> None:
    """Finite gates, a finite report, and a fp16 file that holds the same change, a millionth of a LoRA included."""
    built = unequal(strength, 1.0, basis)
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=3, clip=1.0))
    assert bool(outcome.gates.values.isfinite().all())
    assert all(math.isfinite(value) for report in outcome.reports for value in report.losses.values())
    assert "nan" not in words(built, outcome)
    folded = make_merged(built.pair, outcome.gates).fold(1.0, 0.0)
    again = match_to_model(lora_from_tensors(kohya_state_dict(folded), "saved"), layout())
    for name, low_rank in folded.layers.items():
        saved = again.layers[name].delta()
        assert (
            torch.equal(saved, torch.zeros_like(saved)) if strength == 0 else relative(saved, low_rank.delta()) < 2e-3
        )


@pytest.mark.parametrize("strength", STRENGTHS)
def test_half_precision_never_ends_in_numbers_that_are_not_finite(strength: float) -> None:
    """A network in fp16 overflows under a LoRA 10,000 times too strong: the training says so and stops."""
    built = unequal(strength, 1.0)
    gates = random_gates(built.pair)
    denoiser = TinyDenoiser(tiny_unet(torch.float16))
    config = replace(BOTH_WEIGHTED, steps=3, clip=1.0)
    if strength == 1e4:
        with pytest.raises(
            TrainingError, match=r"step 1: .* not a finite number .* strengths, or run the model in bf16"
        ):
            trained(denoiser, built, config, gates)
        return
    assert bool(trained(denoiser, built, config, gates).gates.values.isfinite().all())


@pytest.mark.parametrize("ratio", [1e-3, 1e3])
def test_loras_of_very_different_magnitude_train_and_are_told(unet: UNet, ratio: float) -> None:
    built = unequal(1.0, ratio)
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=3, clip=1.0))
    assert bool(outcome.gates.values.isfinite().all())
    strong, weak = ("content", "style") if ratio < 1 else ("style", "content")
    assert f"The {strong} LoRA is" in words(built, outcome)
    assert f"times as strong as the {weak} LoRA" in words(built, outcome)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_step_at_zero_terminal_snr_is_algorithm_3(unet: UNet, prediction: Prediction, route: CycleRoute) -> None:
    """At t = 999 the input is noise alone; the losses are the float64 reference's all the same."""
    built = small_pair()
    denoiser, gates = TinyDenoiser(unet, prediction), random_gates(built.pair)
    denoiser.sigmas = torch.tensor([TERMINAL_SIGMA])  # every draw is the last timestep
    config = replace(BOTH_WEIGHTED, cycle_route=route)
    c, s = picture(1), picture(2)
    outcome = trained(denoiser, built, config, gates, [c], [s])
    [report], [gradient] = outcome.reports, outcome.gradients
    assert report.sigma == TERMINAL_SIGMA
    reference = Reference(denoiser, built, c, s, config, report.sigma)
    leaf = wide(gates)
    total = reference.total(leaf)
    total.backward()
    assert report.losses["total"] == pytest.approx(float(total.detach()), rel=1e-3)
    assert leaf.values.grad is not None
    assert relative(gradient, leaf.values.grad) < 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS.items(), ids=str)
def test_every_precision_gives_the_losses_of_float64(dtype: torch.dtype, tolerance: float) -> None:
    """And masks that move the same way: the cosine of both gradients is at least 0.98."""
    built = small_pair()
    gates: Gates = random_gates(built.pair)
    exact = trained(TinyDenoiser(tiny_unet()), built, BOTH_WEIGHTED, gates)
    coarse = trained(TinyDenoiser(tiny_unet(dtype)), built, BOTH_WEIGHTED, gates)
    assert coarse.reports[0].losses == pytest.approx(dict(exact.reports[0].losses), rel=tolerance)
    cosine = torch.nn.functional.cosine_similarity(coarse.gradients[0], exact.gradients[0], dim=0)
    assert float(cosine) > 0.98


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_balancing_changes_the_factors_and_not_a_bit_of_the_change(unit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    given = LowRank(torch.randn(8, 3, generator=generator), unit * torch.randn(3, 5, generator=generator))
    balanced = given.balanced()
    assert torch.equal(balanced.delta(), given.delta())
    assert 0.25 <= float(balanced.up.abs().max() / balanced.down.abs().max()) <= 4


def test_balancing_leaves_what_it_cannot_balance() -> None:
    for empty in (LowRank(torch.zeros(4, 2), torch.ones(2, 3)), LowRank(torch.ones(4, 0), torch.ones(0, 3))):
        assert empty.balanced() is empty
