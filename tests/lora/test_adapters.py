"""Adapters that are no plain LoRA: the nearest LowRank of each, what is lost, and what does not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from duolora_core import lora_from_tensors, match_to_model
from duolora_core.errors import LoraFileError, ModelMismatchError
from duolora_core.lora.adapters import (
    Dora,
    FullDifference,
    Ia3,
    Loha,
    Lokr,
    Oft,
    PlainLora,
    low_rank_of,
    randomised_svd,
)
from duolora_core.lora.adapters.parts import energy_of
from factors import noise
from tiny import layout
from worlds import dense_low_rank, relative

LINEAR = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"  # (32, 32)
KEY = "lora_unet_" + LINEAR.replace(".", "_")
TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def decaying(rows: int, columns: int, decay: float = 0.8) -> Tensor:
    """A matrix of full rank whose singular values fall."""
    short = min(rows, columns)
    u, v = (torch.linalg.qr(noise(size, short, seed=size)).Q for size in (rows, columns))
    return u * decay ** torch.arange(short) @ v.T


@pytest.mark.parametrize("rank", [1, 5, 20, 200])
def test_the_randomised_svd_is_as_good_as_the_whole_one(rank: int) -> None:
    matrix = decaying(200, 90)
    up, down = randomised_svd(matrix, rank)
    sigma = torch.linalg.svdvals(matrix)
    best = float(sigma[rank:].norm())
    assert up.shape == (200, min(rank, 90))
    assert float((matrix - up @ down).norm()) <= 1.02 * best + 1e-5
    assert all(torch.equal(one, other) for one, other in zip((up, down), randomised_svd(matrix, rank), strict=True))


@pytest.mark.parametrize(("limit", "rank"), [(64, 11), (4, 4)])
def test_the_rank_is_what_keeps_99_percent_or_the_limit(limit: int, rank: int) -> None:
    """Singular values 0.8ⁿ: the energy left after r of them is 0.64ʳ, at most 1 % from r = 11 on."""
    matrix = decaying(90, 70)
    low_rank, lost = low_rank_of(FullDifference(matrix), (90, 70), None, limit)
    assert low_rank.rank == rank
    assert lost == pytest.approx(0.64**rank, rel=1e-3)
    assert relative(dense_low_rank(low_rank), matrix) ** 2 == pytest.approx(lost, rel=1e-3)


def test_a_loha_of_small_ranks_is_its_best_approximation_and_its_loss_is_exact() -> None:
    """A flat spectrum, of which a sketch would miss a twentieth."""
    loha = Loha(noise(300, 5), noise(5, 200, seed=3), noise(300, 5, seed=1), noise(5, 200, seed=2), None, None, 2.0)
    delta = loha.delta((300, 200), None).double()
    low_rank, lost = low_rank_of(loha, (300, 200), None, 8)
    sigma = torch.linalg.svdvals(delta)
    left = float(sigma[8:].square().sum())
    assert low_rank.rank == 8
    assert float((delta - low_rank.delta()).norm()) ** 2 == pytest.approx(left, rel=1e-5)
    assert lost == pytest.approx(left / float(sigma.square().sum()), rel=1e-5)


def test_the_energy_of_a_large_layer_is_summed_exactly() -> None:
    """In float32 alone the sum of so many squares is a thousandth too small, and with it the rank and the loss."""
    matrix = 0.1 * noise(1280, 11520)
    assert energy_of(matrix) == pytest.approx(float(matrix.double().square().sum()), rel=1e-6)


def test_a_small_loha_is_exact_and_a_lokr_is_its_best_kronecker_components() -> None:
    loha = Loha(noise(40, 3), noise(3, 30), noise(40, 3, seed=1), noise(3, 30, seed=2), None, None, 2.0)
    low_rank, lost = low_rank_of(loha, (40, 30), None, 9)
    assert lost == 0.0
    assert relative(dense_low_rank(low_rank), loha.delta((40, 30), None)) < 1e-6
    lokr = Lokr(noise(4, 6), None, None, noise(10, 5, seed=3), None, None, None, None)
    delta = lokr.delta((40, 30), None)
    low_rank, lost = low_rank_of(lokr, (40, 30), None, 7, energy=1.0)
    sigma = torch.linalg.svdvals(delta)
    assert low_rank.rank == 7
    assert lost == pytest.approx(float(sigma[7:].square().sum() / sigma.square().sum()), rel=1e-4)


def test_a_dora_of_unchanged_lengths_is_its_lora() -> None:
    """m = ‖W + Δ‖ as PEFT measures it: nothing is rescaled."""
    weight, lora = noise(12, 8), PlainLora(0.1 * noise(12, 2, seed=1), noise(2, 8, seed=2), None, 1.0)
    delta = lora.delta((12, 8), None)
    assert relative(Dora(lora, (weight + delta).norm(dim=1), False).delta((12, 8), weight), delta) < 1e-5


def test_an_oft_keeps_every_length_and_an_ia3_of_zero_changes_nothing() -> None:
    weight = noise(16, 6)
    turned = weight + Oft(noise(4, 4, 4, seed=1), 0.0).delta((16, 6), weight)
    assert torch.allclose(turned.norm(dim=0), weight.norm(dim=0), rtol=1e-5)
    low_rank, lost = low_rank_of(Ia3(torch.zeros(16, 1), False), (16, 6), weight, 4)
    assert (low_rank.rank, lost) == (0, 0.0)


def oft() -> dict[str, Tensor]:
    return {f"{KEY}.oft_blocks": 0.1 * noise(8, 4, 4)}


def weights(name: str) -> Tensor | None:
    shapes: dict[str, tuple[int, ...]] = {LINEAR: (32, 32), TEXT: (48, 12)}
    return noise(*shapes[name]) / math.sqrt(32) if name in shapes else None


@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_placing_gives_the_exact_change_scaled_and_says_what_is_lost(strength: float) -> None:
    file = lora_from_tensors(oft(), "turn.safetensors")
    placed = match_to_model(file, layout(), strength, weights, rank_limit=32)
    weight = weights(LINEAR)
    expected = strength * file.entries[KEY].delta((32, 32), weight)
    found = placed.approximations[LINEAR]
    assert found.kind == "OFT"
    assert relative(dense_low_rank(placed.layers[LINEAR]), expected) ** 2 == pytest.approx(found.lost, abs=1e-6)
    assert found.lost <= 0.01
    assert found.energy == pytest.approx(float(expected.norm()) ** 2, rel=1e-3)
    assert placed.lost == pytest.approx(found.lost)


@pytest.mark.parametrize(
    ("tensors", "weight", "error", "words"),
    [
        (oft(), None, ModelMismatchError, ("OFT", "the model's own weight", KEY)),
        (
            {f"{TEXT}.hada_w{i}_{f}": noise(*s) for i in "12" for f, s in (("a", (48, 2)), ("b", (2, 12)))} | oft(),
            lambda name: None if name == TEXT else weights(name),  # pyright: ignore[reportUnknownLambdaType]
            ModelMismatchError,
            ("LoHa", "Connect the MODEL and CLIP", TEXT),
        ),
        ({f"{KEY}.oft_blocks": noise(8, 5, 5)}, weights, ModelMismatchError, ("8 blocks of 5", "32 outputs", KEY)),
        ({f"{KEY}.diff": noise(32, 31)}, weights, ModelMismatchError, ("(32, 31)", "(32, 32)", KEY)),
        ({f"{KEY}.hada_w1_a": noise(32, 2)}, weights, LoraFileError, ("no hada_w1_b and no hada_w2_a", KEY)),
        ({f"{KEY}.lokr_w1": noise(4, 4)}, weights, LoraFileError, ("no lokr_w2_a and no lokr_w2_b", KEY)),
        ({f"{KEY}.oft_blocks": noise(8, 4, 3)}, weights, LoraFileError, ("do not fit each other", KEY)),
        (
            {
                f"{KEY}.lora_up.weight": noise(32, 2),
                f"{KEY}.lora_down.weight": noise(2, 32),
                f"{KEY}.magnitude": noise(7),
            },
            weights,
            ModelMismatchError,
            ("magnitude of shape (7,)", KEY),
        ),
        ({f"{KEY}.oft_blocks": noise(8, 4, 4) * math.nan}, weights, LoraFileError, ("NaN", KEY)),
    ],
)
def test_what_does_not_fit_is_named(
    tensors: dict[str, Tensor], weight: Any, error: type[Exception], words: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        match_to_model(lora_from_tensors(tensors, "odd.safetensors"), layout(), weight=weight)
    assert all(word in str(caught.value) for word in ("odd.safetensors", *words)), str(caught.value)


def test_the_text_encoders_may_have_a_strength_of_their_own() -> None:
    """It scales their layers and 1-D changes alone."""
    tensors = {f"{layer}.lora_up.weight": noise(rows, 2) for layer, rows in ((KEY, 32), (TEXT, 48))}
    tensors |= {f"{layer}.lora_down.weight": noise(2, columns) for layer, columns in ((KEY, 32), (TEXT, 12))}
    file = lora_from_tensors(tensors | {f"{TEXT}.diff_b": torch.ones(48)}, "x")
    one, other = match_to_model(file, layout()), match_to_model(file, layout(), 1.0, text_strength=0.25)
    assert torch.equal(one.layers[LINEAR].delta(), other.layers[LINEAR].delta())
    assert relative(other.text[TEXT].delta(), 0.25 * one.text[TEXT].delta()) < 1e-6
    assert torch.equal(other.text_offsets[TEXT, "bias"], torch.full((48,), 0.25))
