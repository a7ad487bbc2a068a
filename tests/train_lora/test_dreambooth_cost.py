"""What a step of training from pictures costs, counted: FLOPs near adapters for nothing, memory as planned."""

from __future__ import annotations

import pytest

from benchmarks.ldm_unet import UNetConfig
from benchmarks.speed.train_lora import MAKERS, memory, meta_denoiser, over_limit
from duolora_core.model.memory.estimate import CHECKPOINTED_LEVELS, Checkpointing, MemoryPlan, Storage, estimate
from duolora_core.train_lora import LoraConfig, train_lora_workload

SMALL = UNetConfig(
    channels=64,
    down_depths=((0,), (1,), (1, 1)),
    mid_depth=1,
    up_depths=((0, 0), (1, 1), (1, 1, 1)),
    context=256,
    pooled=128,
)


def test_a_rank_64_step_of_sdxl_is_at_most_a_tenth_above_adapters_for_nothing() -> None:
    assert 1.0 < over_limit(meta_denoiser(), "plain", 512) < 1.1


@pytest.mark.parametrize("checkpointing", CHECKPOINTED_LEVELS)
@pytest.mark.parametrize("method", list(MAKERS))
def test_the_planner_estimates_a_whole_training(method: str, checkpointing: Checkpointing) -> None:
    """Never less than it takes, and not so much more that a card that would do is refused."""
    planned, measured = memory(meta_denoiser(SMALL), method, 512, checkpointing, rank=16)
    assert 1.0 <= planned / measured < 1.15


def test_trained_numbers_count_with_their_moments_and_their_gradient() -> None:
    denoiser = meta_denoiser(SMALL)
    loras = MAKERS["unzip"](denoiser.layout, LoraConfig(8))
    work = train_lora_workload(denoiser.layout, loras, [(8, 8), (4, 4)], samples=2)
    numbers = sum(tensor.numel() for lora in loras.values() for _, tensor in lora.trained())
    needs = estimate(work, Storage(0, 2, casts=False), MemoryPlan(2, "all"))
    assert work.trained == numbers and work.latent == (8, 8)
    assert needs.factors == (2 + 4 + 8) * numbers and needs.gradient == 4 * numbers
    assert needs.beside_weights == needs.factors + max(needs.student, needs.teacher, needs.gradient)
