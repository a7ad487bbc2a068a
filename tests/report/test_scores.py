"""Scores against angles that are known."""

from __future__ import annotations

import math

import pytest
import torch

from duolora_core.report.scores import self_similarity, similarity


def at(*degrees: float) -> torch.Tensor:
    """Vectors of different lengths at these angles, (n, 2)."""
    angles = torch.tensor([math.radians(angle) for angle in degrees])
    lengths = 1.0 + torch.arange(len(degrees), dtype=torch.float32)[:, None]
    return lengths * torch.stack([angles.cos(), angles.sin()], dim=1)


def test_similarity_is_the_mean_cosine_of_all_pairs() -> None:
    cosines = [math.cos(math.radians(angle)) for angle in (10, 50, 20, 40)]  # 0 and 30 against 10 and 50, 10 and -10…
    assert similarity(at(0, 30), at(10, 50)) == pytest.approx((cosines[0] + cosines[1] + 2 * cosines[2]) / 4, abs=1e-6)
    assert similarity(at(75), at(75)) == pytest.approx(1.0)
    assert similarity(at(0), at(180)) == pytest.approx(-1.0)
    assert similarity(1000 * at(0, 30), at(10, 50)) == pytest.approx(similarity(at(0, 30), at(10, 50)))


def test_references_are_not_compared_with_themselves() -> None:
    third = math.cos(math.radians(60))
    assert self_similarity(at(0, 60)) == pytest.approx(third, abs=1e-6)
    assert self_similarity(at(0, 60, 60)) == pytest.approx((2 * third + 1) / 3, abs=1e-6)
    assert self_similarity(at(0)) is None
