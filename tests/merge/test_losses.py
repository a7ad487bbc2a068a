"""The losses against formulas written out in float64, finite differences, and what an optimiser does with the prior."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from duolora_core import Gates
from duolora_core.merge.config import PriorForm
from duolora_core.merge.gates import Slot
from duolora_core.merge.losses import layer_prior_loss
from duolora_core.merge.roles import Role
from duolora_core.model.denoiser import add_noise, model_output
from tiny import sdxl_alphas

ROLES: dict[str, Role] = {"a": "content", "b": "style", "c": "neutral", "d": "content", "e": "style"}
RANKS = {"a": (5, 3), "b": (4, 4), "c": (3, 3), "d": (2, 0), "e": (0, 2)}  # d and e have one LoRA only: no constraint


def gates_of(ranks: dict[str, tuple[int, int]], seed: int | None = None) -> Gates:
    """Float64 gates: ones, or random of both signs."""
    slots: dict[str, Slot] = {}
    for name, (content, style) in ranks.items():
        slots[name] = Slot(sum(map(sum, list(ranks.values())[: len(slots)])), content, style)
    total = sum(map(sum, ranks.values()))
    values = torch.ones(total, dtype=torch.float64)
    if seed is not None:
        values = torch.randn(total, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Gates(values, slots)


def written_out(gates: Gates, form: PriorForm, sparsity: float, rank_weight: float) -> float:
    """Equation 1 and Algorithm 1 with plain loops; only layers a and b have a role and both LoRAs."""
    terms: list[float] = []
    for name in ("a", "b"):
        content, style = gates.content(name).tolist(), gates.style(name).tolist()
        dominant, other = (content, style) if ROLES[name] == "content" else (style, content)
        if form == "diagonal":
            hinge = max(0.0, sum(map(abs, other)) - sum(map(abs, dominant)))
        else:
            hinge = math.hypot(*other) - math.hypot(*dominant)
        terms.append(sparsity * sum(map(abs, dominant)) + rank_weight * hinge)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", ["diagonal", "vector"])
def test_layer_prior_is_the_written_formula(form: PriorForm, seed: int) -> None:
    gates = gates_of(RANKS, seed)
    assert float(layer_prior_loss(gates, ROLES, form, 0.3, 1.7)) == pytest.approx(
        written_out(gates, form, 0.3, 1.7), rel=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", ["diagonal", "vector"])
def test_layer_prior_gradient_is_its_finite_difference(form: PriorForm, seed: int) -> None:
    gates = gates_of(RANKS, seed)
    gates.values.requires_grad_()
    layer_prior_loss(gates, ROLES, form, 0.3, 1.7).backward()
    assert gates.values.grad is not None
    step = 1e-6
    for i in range(gates.values.numel()):
        sides: list[float] = []
        for sign in (1, -1):
            moved = Gates(gates.values.detach().clone(), gates.slots)
            moved.values[i] += sign * step
            sides.append(written_out(moved, form, 0.3, 1.7))
        assert float(gates.values.grad[i]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_layer_prior_is_symmetric_in_the_roles() -> None:
    """A style layer is a content layer with the LoRAs exchanged."""
    content_first = gates_of({"a": (5, 3)}, 1)
    style_first = Gates(content_first.values.roll(3), {"a": Slot(0, 3, 5)})
    one = layer_prior_loss(content_first, {"a": "content"})
    two = layer_prior_loss(style_first, {"a": "style"})
    assert float(one) == pytest.approx(float(two), rel=1e-12)


def test_layer_prior_without_roles_is_a_zero_that_can_be_differentiated() -> None:
    gates = gates_of(RANKS, 0)
    gates.values.requires_grad_()
    loss = layer_prior_loss(gates, dict.fromkeys(RANKS, "neutral"))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert gates.values.grad is not None and float(gates.values.grad.abs().max()) == 0.0


def after_training(form: PriorForm, sparsity: float, rank_weight: float, role: Role = "content") -> tuple[float, float]:
    """Mean |gate| of the dominant and the other side of one rank-64 layer: 100 AdamW steps at 0.01, from ones."""
    gates = gates_of({"a": (64, 64)})
    values = gates.values.requires_grad_()
    optimiser = torch.optim.AdamW([values], lr=0.01, weight_decay=0.0)
    for _ in range(100):
        optimiser.zero_grad()
        layer_prior_loss(gates, {"a": role}, form, sparsity, rank_weight).backward()
        optimiser.step()
    content, style = (float(side.abs().mean().detach()) for side in (gates.content("a"), gates.style("a")))
    return (content, style) if role == "content" else (style, content)


@pytest.mark.parametrize("role", ["content", "style"])
def test_vector_form_drives_both_sides_to_zero(role: Role) -> None:
    dominant, other = after_training("vector", 1.0, 1.0, role)
    assert dominant < 0.05 and other < 0.05


def test_vector_form_pulls_the_dominant_side_seven_times_harder() -> None:
    """At ones and rank 64: 1 - 1/√64 on the dominant gates against 1/√64 on the other."""
    gates = gates_of({"a": (64, 64)})
    gates.values.requires_grad_()
    layer_prior_loss(gates, {"a": "content"}, "vector", 1.0, 1.0).backward()
    pull = gates.values.grad
    assert pull is not None
    assert float(pull[:64].mean() / pull[64:].mean()) == pytest.approx(7.0)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_a_hinge_as_heavy_as_the_sparsity_prefers_nobody(weight: float) -> None:
    dominant, other = after_training("diagonal", weight, weight)
    assert abs(dominant - other) < 0.001
    assert dominant < 0.35


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("rank_weight", [1.0, 2.0])
def test_a_hinge_heavier_than_the_sparsity_keeps_the_dominant_side(role: Role, rank_weight: float) -> None:
    """Most of it is kept where equal weights lose two thirds, and the other side is held below it. The margin is thin:
    from ones both sink together, the dominant side ahead by 0.01 at a rank weight of 1 and by 0.04 at 2."""
    dominant, other = after_training("diagonal", 0.1, rank_weight, role)
    assert dominant > 0.75
    assert other < dominant - 0.005


@pytest.mark.parametrize(("sparsity", "rank_weight", "pull"), [(0.1, 2.0, -1.9), (0.5, 0.5, 0.0), (1.0, 0.4, 0.6)])
def test_an_outweighed_dominant_side_is_raised_by_the_difference_of_the_weights(
    sparsity: float, rank_weight: float, pull: float
) -> None:
    """While ‖o‖₁ > ‖d‖₁ the gradient is sparsity - rank_weight on each dominant gate and rank_weight on each other."""
    gates = gates_of({"a": (8, 8)})
    gates.values[8:] = 1.5
    gates.values.requires_grad_()
    layer_prior_loss(gates, {"a": "content"}, "diagonal", sparsity, rank_weight).backward()
    assert gates.values.grad is not None
    assert gates.values.grad.tolist() == pytest.approx([pull] * 8 + [rank_weight] * 8)


TIMESTEPS = [0, 50, 500, 999]


def paper_quantities(timestep: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(ā, σ, x0, n, the network's eps) in float64."""
    generator = torch.Generator().manual_seed(timestep)
    x0, noise, eps = (torch.randn(4, 6, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    alpha = sdxl_alphas()[timestep]
    return alpha, ((1 - alpha) / alpha).sqrt(), x0, noise, eps


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_an_estimate_noised_again_is_the_papers_hop(timestep: int) -> None:
    """z' = z + √(1-ā)(n - ε) in the paper's latents z = √ā x0 + √(1-ā) n, where ours are x = z / √ā."""
    alpha, sigma, x0, noise, eps = paper_quantities(timestep)
    z = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    hop = z + (1 - alpha).sqrt() * (noise - eps)
    denoised = (z - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    ours = add_noise(denoised, noise, sigma) / (1 + sigma.square()).sqrt()
    assert torch.allclose(ours, hop, rtol=1e-11, atol=1e-12)


def test_noised_takes_a_sigma_for_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    sigma = torch.tensor([0.1, 1.0, 14.0], dtype=torch.float64)
    together = add_noise(x0, noise, sigma)
    for i in range(3):
        assert torch.equal(together[i], add_noise(x0[i], noise[i], sigma[i]))
        assert torch.equal(together[i], x0[i] + float(sigma[i]) * noise[i])


def eps_denoised(x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
    return x - sigma * output


def v_denoised(x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
    """√ā z - √(1-ā) v with √ā = 1/√(1+σ²) and z = √ā x."""
    return x / (1 + sigma.square()) - output * sigma / (1 + sigma.square()).sqrt()


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6, 4500.0])
@pytest.mark.parametrize(("prediction", "denoise"), [("eps", eps_denoised), ("v", v_denoised)])
def test_network_output_undoes_the_denoised_estimate(
    prediction: str, denoise: Callable[[Tensor, Tensor, Tensor], Tensor], sigma: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    output, x = (torch.randn(4, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    level = torch.tensor(sigma, dtype=torch.float64)
    x = x * (1 + level.square()).sqrt()
    back = model_output(x, denoise(x, output, level), level, prediction)  # type: ignore[arg-type]
    assert torch.allclose(back, output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6, 4500.0])
def test_the_true_v_is_root_alpha_noise_minus_root_one_minus_alpha_x0(sigma: float) -> None:
    """And it stays accurate in float32 up to a terminal sigma of thousands."""
    generator = torch.Generator().manual_seed(2)
    x0, noise = (torch.randn(4, 6, 6, generator=generator) for _ in range(2))
    level = torch.tensor(sigma)
    v = model_output(add_noise(x0, noise, level), x0, level, "v")
    root = math.sqrt(1 + sigma**2)
    exact = noise.double() / root - x0.double() * sigma / root
    assert torch.allclose(v.double(), exact, atol=2e-5)
