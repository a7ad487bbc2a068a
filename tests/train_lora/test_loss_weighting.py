"""Min-SNR weights and rate schedules against their definitions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from duolora_core.model.denoiser import Prediction, add_noise, model_output, training_target
from duolora_core.train_lora.config import Schedule
from duolora_core.train_lora.loss_weighting import rate_factor, snr_weight


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("sigma", [0.03, 0.4, 1.0, 14.0])
def test_min_snr_is_the_clamped_snr_weight_of_the_error_in_x0(prediction: Prediction, sigma: float) -> None:
    """w(sigma) · MSE in what the network predicts = min(SNR, γ) · MSE in x0, for any estimate of x0."""
    generator = torch.Generator().manual_seed(0)
    x0, noise, guess = (torch.randn(4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    level = torch.tensor(sigma, dtype=torch.float64)
    output = model_output(add_noise(x0, noise, level), guess, level, prediction)
    error = (output - training_target(x0, noise, level, prediction)).square().mean()
    expected = min(1 / sigma**2, 5.0) * (guess - x0).square().mean()
    assert float(snr_weight(level, 5.0, prediction) * error) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_weights_at_zero_terminal_snr_and_without_gamma(prediction: Prediction) -> None:
    levels = torch.tensor([1e-3, 1.0, 4518.0, float("inf")])
    weights = snr_weight(levels, 5.0, prediction)
    assert bool(weights[:3].isfinite().all()) and bool((weights[:3] >= 0).all())
    assert float(snr_weight(levels[2:3], 5.0, "eps")) == 1.0  # eps keeps what v gives up there
    assert torch.equal(snr_weight(levels, None, prediction), torch.ones(4))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 4518.0])
def test_a_perfect_estimate_makes_the_perfect_output(prediction: Prediction, sigma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    level = torch.tensor(sigma, dtype=torch.float64)
    output = model_output(add_noise(x0, noise, level), x0, level, prediction)
    assert torch.allclose(output, training_target(x0, noise, level, prediction), atol=1e-9)


def test_schedules() -> None:
    def factors(schedule: Schedule, warmup: int = 0) -> list[float]:
        return [rate_factor(step, 8, warmup, schedule) for step in range(8)]

    assert factors("constant") == [1.0] * 8
    assert factors("constant", 3) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert factors("linear") == [1.0] * 5 + [0.75, 0.5, 0.25]
    cosine = factors("cosine", 2)
    assert cosine[2] == 1.0 and cosine[5] == pytest.approx(0.5) and 0 < cosine[7] < 0.1
    assert all(before > after for before, after in pairwise(cosine[2:]))
