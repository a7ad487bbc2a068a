"""LowRank against dense float64 matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duolora_core import LowRank
from duolora_core.lora.low_rank import concat
from worlds import dense_low_rank, relative

SHAPES = [(12, 20, 4), (20, 12, 4), (7, 30, 7), (6, 10, 16), (10, 6, 16), (8, 8, 1)]  # (outputs, inputs, rank)


def random(outputs: int, inputs: int, rank: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(outputs, rank, generator=generator, dtype=dtype),
        torch.randn(rank, inputs, generator=generator, dtype=dtype),
    )


def singular_values(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix.to(torch.float64))


@pytest.mark.parametrize(("outputs", "inputs", "rank"), SHAPES)
def test_svd_basis_is_the_same_delta(outputs: int, inputs: int, rank: int) -> None:
    lora = random(outputs, inputs, rank)
    basis = lora.svd_basis()
    assert basis.rank == min(outputs, inputs, rank)
    assert relative(basis.up @ basis.down, lora.up @ lora.down) < 1e-13


@pytest.mark.parametrize(("outputs", "inputs", "rank"), SHAPES)
def test_svd_basis_holds_the_singular_values_strongest_first(outputs: int, inputs: int, rank: int) -> None:
    lora = random(outputs, inputs, rank)
    basis = lora.svd_basis()
    sigma = singular_values(lora.up @ lora.down)[: basis.rank]
    for gram in (basis.up.T @ basis.up, basis.down @ basis.down.T):  # both diag(Σ): orthogonal, evenly scaled
        assert torch.allclose(gram, torch.diag(sigma), atol=1e-12 * float(sigma[0]))


@pytest.mark.parametrize(("outputs", "inputs", "rank"), SHAPES)
@pytest.mark.parametrize("kept", [1, 3, 100])
def test_the_strongest_components_are_those_of_the_svd_basis(outputs: int, inputs: int, rank: int, kept: int) -> None:
    lora = random(outputs, inputs, rank)
    found, energy = lora.strongest(kept)
    basis = lora.svd_basis()
    expected = basis.select(torch.arange(basis.rank) < kept)
    assert found.rank == expected.rank
    assert relative(found.delta(), expected.delta()) < 1e-12
    assert torch.allclose(found.up.norm(dim=0), expected.up.norm(dim=0)), "√Σ on both sides"
    assert energy == pytest.approx(float(lora.delta().square().sum()), rel=1e-12)


def test_svd_basis_does_not_depend_on_the_basis_of_the_file() -> None:
    lora = random(12, 20, 4)
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    other = LowRank(lora.up @ mix, torch.linalg.solve(mix, lora.down))
    for one, two in zip(components(lora.svd_basis()), components(other.svd_basis()), strict=True):
        assert relative(two, one) < 1e-9


def components(lora: LowRank) -> list[Tensor]:
    return [lora.up[:, [i]] @ lora.down[[i]] for i in range(lora.rank)]


def test_svd_basis_of_an_untrained_lora_is_zero() -> None:
    lora = LowRank(torch.zeros(12, 4), torch.randn(4, 20, generator=torch.Generator().manual_seed(0)))
    basis = lora.svd_basis()
    assert bool((basis.up @ basis.down == 0).all())
    assert [part.norm() for part in lora.truncated(2)] == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("independent", [0, 1, 3])
def test_svd_basis_of_a_rank_deficient_lora(independent: int, dtype: torch.dtype) -> None:
    """Components that repeat others or are zero: the same delta, finite, strongest first, the surplus all but zero."""
    part = random(40, 50, 3, dtype=dtype).select(torch.arange(3) < independent)
    nothing = LowRank(torch.zeros(40, 2, dtype=dtype), torch.ones(2, 50, dtype=dtype))
    lora = concat([part, part.scaled(-0.5), nothing])
    basis = lora.svd_basis()
    accuracy = 20 * torch.finfo(dtype).eps
    size = max(lora.norm(), 1e-30)
    assert basis.rank == lora.rank
    assert bool(basis.up.isfinite().all()) and bool(basis.down.isfinite().all())
    assert concat([basis, lora.scaled(-1)]).norm() <= accuracy * size
    strengths = (basis.up.norm(dim=0) * basis.down.norm(dim=1)).tolist()
    assert strengths == sorted(strengths, reverse=True)
    assert max(strengths[independent:]) <= accuracy * size


def test_svd_basis_in_float32_is_accurate_to_float32() -> None:
    lora = random(64, 96, 16, dtype=torch.float32)
    assert relative(dense_low_rank(lora.svd_basis()), dense_low_rank(lora)) < 2e-6


def test_gating_the_basis_leading_components_is_the_best_approximation() -> None:
    """Eckart-Young: with k gates open the error is the tail of the singular values, which no rank-k change beats."""
    lora = random(12, 20, 6)
    full = lora.up @ lora.down
    basis = lora.svd_basis()
    for k in range(7):
        gated = basis.gated((torch.arange(6) < k).to(torch.float64))
        error = torch.linalg.matrix_norm(full - gated.up @ gated.down)
        assert float(error) == pytest.approx(float(singular_values(full)[k:].norm()), abs=1e-12)


def test_gated_is_up_diag_down() -> None:
    lora, gate = random(12, 20, 4), torch.tensor([1.0, -0.5, 0.0, 2.0])
    assert relative(lora.gated(gate).delta(), lora.up @ torch.diag(gate.double()) @ lora.down) < 1e-15


@pytest.mark.parametrize("factor", [2.0, 0.0, -1.5])
def test_scaled_counts_the_factor_once(factor: float) -> None:
    lora = random(12, 20, 4)
    assert torch.allclose(lora.scaled(factor).delta(), factor * lora.delta(), rtol=1e-14, atol=0)


def test_select_keeps_the_marked_components() -> None:
    lora = random(12, 20, 4)
    kept = lora.select(torch.tensor([True, False, False, True]))
    parts = components(lora)
    assert kept.rank == 2
    assert relative(kept.delta(), parts[0] + parts[3]) < 1e-14


def test_concat_is_the_sum() -> None:
    terms = [random(12, 20, rank, seed=rank) for rank in (1, 4, 7)]
    whole = concat(terms)
    assert whole.rank == 12
    assert relative(whole.delta(), sum((t.delta() for t in terms), torch.zeros(12, 20))) < 1e-14


@pytest.mark.parametrize(("outputs", "inputs", "rank"), SHAPES)
def test_norm_is_the_frobenius_norm(outputs: int, inputs: int, rank: int) -> None:
    lora = random(outputs, inputs, rank)
    assert lora.norm() == pytest.approx(float(torch.linalg.matrix_norm(lora.up @ lora.down)), rel=1e-13)


def test_norm_of_a_float32_difference_is_not_lost_in_rounding() -> None:
    """‖A − A·(1 + 1e-5)‖ = 1e-5 ‖A‖; Gram matrices in float32 would answer with their rounding, about 3e-4 of ‖A‖."""
    lora = random(32, 48, 4, dtype=torch.float32)
    difference = concat([lora, lora.scaled(-1 - 1e-5)])
    exact = torch.linalg.matrix_norm(dense_low_rank(difference))
    assert difference.norm() == pytest.approx(float(exact), rel=1e-4)


@pytest.mark.parametrize("max_rank", [1, 3, 5])
def test_truncated_is_the_nearest_and_tells_the_true_error(max_rank: int) -> None:
    lora = random(12, 20, 6)
    full = lora.up @ lora.down
    nearest, rest = lora.truncated(max_rank)
    assert (nearest.rank, rest.rank) == (max_rank, 6 - max_rank)
    assert relative(nearest.delta() + rest.delta(), full) < 1e-13
    error = rest.norm() / lora.norm()
    missing = torch.linalg.matrix_norm(full - nearest.delta()) / torch.linalg.matrix_norm(full)
    optimum = singular_values(full)[max_rank:].norm() / singular_values(full).norm()
    assert error == pytest.approx(float(missing), rel=1e-10)
    assert error == pytest.approx(float(optimum), rel=1e-10)


@pytest.mark.parametrize("max_rank", [4, 9])
def test_truncated_to_a_rank_it_has_is_itself(max_rank: int) -> None:
    lora = random(12, 20, 4)
    nearest, rest = lora.truncated(max_rank)
    assert nearest is lora
    assert rest.delta().shape == lora.delta().shape and rest.norm() == 0.0
