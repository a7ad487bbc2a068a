"""Training against Algorithm 3 written out slowly: one sample at a time, dense ΔW in the weights, the paper's latents.

`train` keeps latents and losses in float32 whatever the model computes in; with a float64 model its losses then agree
with the float64 reference to about 1e-6 and its gradients to about 1e-5; both are asserted with a margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.checkpoint import checkpoint

from benchmarks.ldm_unet import ResBlock, TransformerBlock, UNet
from duolora_core import (
    PRESETS,
    Gates,
    MergeConfig,
    Picture,
    StepReport,
    attach,
    initial_gates,
    layer_roles,
    make_merged,
    open_gates,
    train,
)
from duolora_core.config import CycleRoute
from duolora_core.denoiser import Prediction
from duolora_core.errors import SettingsError, TrainingError
from worlds import (
    TinyDenoiser,
    World,
    hooks,
    inputs,
    layout,
    pick,
    picture,
    random_gates,
    relative,
    run,
    tiny_unet,
    world,
)

LAYERS = pick(
    r"^(time_embed\.0|input_blocks\.3\.0\.op|out\.2"
    r"|input_blocks\.4\.1\.transformer_blocks\.0\.attn1\.to_q|middle_block\.0\.(in_layers\.2|emb_layers\.1)"
    r"|middle_block\.1\.transformer_blocks\.[01]\.attn2\.to_[kv]|output_blocks\.1\.1\.transformer_blocks\.0\.attn1\.to_v"
    r"|output_blocks\.4\.1\.transformer_blocks\.0\.ff\.net\.2)$"
)
ROLES = layer_roles(layout(), "resolution")
BOTH_WEIGHTED = MergeConfig(
    steps=1, clip=math.inf, cycle_weight=0.7, reconstruction_weight=0.9, layer_prior_weight=0.05, rank_weight=1.5
)
ROUTES: tuple[CycleRoute, ...] = ("authors", "differentiable")


@pytest.fixture(scope="module")
def unet() -> UNet:
    return tiny_unet()


@pytest.fixture(scope="module")
def built() -> World:
    return world(LAYERS[:-1], LAYERS[1:], ranks=(3, 2))


@contextmanager
def gradients() -> Generator[list[Tensor], None, None]:
    """Every gradient that an optimiser is about to use, through PyTorch's own hook."""
    seen: list[Tensor] = []

    def record(optimiser: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(optimiser.param_groups[0]["params"][0].grad.clone())

    handle = register_optimizer_step_pre_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass(frozen=True)
class Outcome:
    reports: list[StepReport]
    gradients: list[Tensor]
    gates: Gates


def trained(
    denoiser: TinyDenoiser,
    built: World,
    config: MergeConfig,
    gates: Gates | None = None,
    content: Sequence[Picture] = (picture(1),),
    style: Sequence[Picture] = (picture(2),),
) -> Outcome:
    gates = open_gates(built.pair) if gates is None else gates.copy()
    with gradients() as seen, attach(denoiser.modules, built.pair, gates) as gated:
        reports = list(train(denoiser, gated, content, style, ROLES, config))
    return Outcome(reports, seen, gates)


class Reference:
    """One step of Algorithm 3 in float64. Networks are the UNet with W + ΔW; z, ā and n are the paper's."""

    def __init__(self, denoiser: TinyDenoiser, built: World, c: Picture, s: Picture, config: MergeConfig, sigma: float):
        self.denoiser, self.built, self.c, self.s, self.config = denoiser, built, c, s, config
        self.alpha = 1 / (1 + torch.tensor(sigma, dtype=torch.float64).square())
        self.timestep = denoiser.timesteps(torch.tensor([sigma]))
        x_c, x_s = (next(seen.x for seen in denoiser.seen if seen.condition is p.own).double() for p in (c, s))
        self.noise_c, self.noise_s = (x_c - c.latent) / sigma, (x_s - s.latent) / sigma
        self.z_c, self.z_s = self.alpha.sqrt() * x_c, self.alpha.sqrt() * x_s

    def network(self, sides: Sequence[tuple[Mapping[str, Any], Callable[[str], Tensor]]]) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {
            f"{name}.weight": module.get_parameter("weight") for name, module in self.denoiser.modules.items()
        }
        for side, gate in sides:
            for name, low_rank in side.items():
                change = low_rank.up.double() @ torch.diag(gate(name).double()) @ low_rank.down.double()
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + change.reshape(layout().layers[name].shape)
        return weights

    def single(self, side: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.network([(side, lambda name: torch.ones(side[name].rank))])

    def output(self, network: dict[str, Tensor], z: Tensor, condition: Any) -> Tensor:
        call = _Call(self.denoiser.unet, network)
        return run(call, z[None], self.timestep, [condition])[0]  # type: ignore[arg-type]

    def hop(self, z: Tensor, noise: Tensor, output: Tensor) -> Tensor:
        """z + √(1-ā)(n - ε); a v-prediction is turned into ε first."""
        root, rest = self.alpha.sqrt(), (1 - self.alpha).sqrt()
        eps = output if self.denoiser.prediction == "eps" else root * output + rest * z
        return z + rest * (noise - eps)

    def losses(self, gates: Gates) -> dict[str, Tensor]:
        c, s, pair = self.c, self.s, self.built.pair
        with torch.no_grad():
            only_content, only_style = self.single(pair.content), self.single(pair.style)
            cc, ss = self.output(only_content, self.z_c, c.own), self.output(only_style, self.z_s, s.own)
            cs = self.output(only_style, self.z_c, c.combined)
            sc = self.output(only_content, self.z_s, s.combined)
            z_cs, z_sc = self.hop(self.z_c, self.noise_c, cs), self.hop(self.z_s, self.noise_s, sc)
            csc, scs = self.output(only_style, z_cs, c.own), self.output(only_content, z_sc, s.own)
        merge = self.network([(pair.content, gates.content), (pair.style, gates.style)])
        mc, ms = self.output(merge, self.z_c, c.own), self.output(merge, self.z_s, s.own)
        if self.config.cycle_route == "authors":
            cycle_c, cycle_s = mse(mc, csc), mse(ms, scs)
        else:
            cycle_c, cycle_s = mse(self.output(merge, z_cs, c.own), cc), mse(self.output(merge, z_sc, s.own), ss)
        return {
            "reconstruction_content": mse(mc, cc),
            "reconstruction_style": mse(ms, ss),
            "cycle_style": cycle_c,
            "cycle_content": cycle_s,
            "layer_prior": self.prior(gates),
        }

    def prior(self, gates: Gates) -> Tensor:
        terms: list[Tensor] = []
        for name in gates.slots:
            content, style = gates.content(name).abs().sum(), gates.style(name).abs().sum()
            if ROLES[name] != "neutral" and float(content.detach()) and float(style.detach()):
                dominant, other = (content, style) if ROLES[name] == "content" else (style, content)
                terms.append(
                    self.config.sparsity * dominant + self.config.rank_weight * (other - dominant).clamp(min=0)
                )
        return torch.stack(terms).mean()

    def total(self, gates: Gates) -> Tensor:
        losses, config = self.losses(gates), self.config
        reconstruction = losses["reconstruction_content"] + losses["reconstruction_style"]
        cycle = losses["cycle_style"] + losses["cycle_content"]
        return (
            config.reconstruction_weight * reconstruction
            + config.cycle_weight * cycle
            + config.layer_prior_weight * losses["layer_prior"]
        )


class _Call(nn.Module):
    """A UNet with other weights, called like one."""

    def __init__(self, unet: UNet, weights: dict[str, Tensor]):
        super().__init__()
        self.unet, self.weights = unet, weights

    def forward(self, *args: Tensor) -> Tensor:
        return functional_call(self.unet, self.weights, args)


def mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


def wide(gates: Gates) -> Gates:
    """A float64 leaf of the same gates."""
    return Gates(gates.values.detach().double().requires_grad_(), gates.slots)


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
        assert relative(torch.stack(other.gradients), torch.stack(outcomes[0].gradients)) < 1e-4
        assert torch.allclose(other.gates.values, outcomes[0].gates.values, atol=1e-4)


def test_a_seed_decides_everything(unet: UNet, built: World) -> None:
    pictures = [picture(1), picture(3)], [picture(2), picture(4)]
    runs = [
        trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=2, seed=seed), None, *pictures).gates.values
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert float((runs[0] - runs[2]).abs().max()) > 1e-3


def test_global_random_state_is_neither_read_nor_moved(unet: UNet, built: World) -> None:
    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = trained(TinyDenoiser(unet), built, BOTH_WEIGHTED).gates.values
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(trained(TinyDenoiser(unet), built, BOTH_WEIGHTED).gates.values, one)
    finally:
        torch.set_rng_state(state)


def test_every_picture_is_drawn_sooner_or_later(unet: UNet, built: World) -> None:
    content, style = [picture(i) for i in range(3)], [picture(10 + i) for i in range(2)]
    denoiser = TinyDenoiser(unet)
    trained(denoiser, built, replace(BOTH_WEIGHTED, steps=12, cycle_weight=0.0), None, content, style)
    drawn = {id(seen.condition) for seen in denoiser.seen}
    assert drawn == {id(p.own) for p in (*content, *style)}


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


def test_training_lowers_the_loss(unet: UNet, built: World) -> None:
    """The mean reconstruction over fixed draws falls below the plain sum's; a learning rate of 0 only measures."""
    alone = replace(BOTH_WEIGHTED, layer_prior_weight=0.0, cycle_weight=0.0)

    def measured(gates: Gates) -> float:
        draws = [replace(alone, learning_rate=0.0, seed=100 + i) for i in range(4)]
        return sum(trained(TinyDenoiser(unet), built, draw, gates).reports[0].losses["total"] for draw in draws)

    start = open_gates(built.pair)
    config = replace(alone, steps=25, learning_rate=0.02, seed=1)
    outcome = trained(TinyDenoiser(unet), built, config, start)
    assert measured(outcome.gates) < 0.8 * measured(start)


def test_the_only_thing_trained_is_the_gates(unet: UNet, built: World) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    factors = {name: low_rank.delta() for name, low_rank in built.pair.content.items()}
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, steps=2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert all(torch.equal(built.pair.content[name].delta(), delta) for name, delta in factors.items())
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert bool((outcome.gates.values != 1).all())


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_leaving_after_any_step_keeps_what_was_reached(unet: UNet, built: World, taken: int) -> None:
    config, gates, denoiser = replace(BOTH_WEIGHTED, steps=3), open_gates(built.pair), TinyDenoiser(unet)
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        for _ in range(taken):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
    expected = trained(TinyDenoiser(unet), built, replace(config, steps=taken)) if taken else None
    assert torch.equal(gates.values, expected.gates.values if expected else torch.ones_like(gates.values))
    assert not gates.values.requires_grad
    assert hooks(unet) == 0
    folded = make_merged(built.pair, gates).fold()
    assert set(folded.layers) == set(built.pair.names)


def test_a_merge_can_be_taken_between_two_steps(unet: UNet, built: World) -> None:
    """A preview: `make_merged` snapshots, and running the attached model in between does not disturb the training."""
    config, denoiser, gates = replace(BOTH_WEIGHTED, steps=2), TinyDenoiser(unet), open_gates(built.pair)
    with attach(denoiser.modules, built.pair, gates) as gated:
        steps = train(denoiser, gated, [picture(1)], [picture(2)], ROLES, config)
        next(steps)
        snapshot = make_merged(built.pair, gates)
        kept = {name: low_rank.delta().clone() for name, low_rank in snapshot.fold().layers.items()}
        with torch.no_grad(), gated.rows(["merge"]):
            run(unet, *inputs(1))
        next(steps)
        steps.close()  # type: ignore[attr-defined]
    assert all(torch.equal(snapshot.fold().layers[name].delta(), delta) for name, delta in kept.items())
    assert torch.equal(gates.values, trained(TinyDenoiser(unet), built, config).gates.values)


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


@pytest.mark.parametrize("clip", [1e-4, math.inf])
def test_clip_bounds_the_gradient_and_the_report_tells_it_unclipped(unet: UNet, built: World, clip: float) -> None:
    outcome = trained(TinyDenoiser(unet), built, replace(BOTH_WEIGHTED, clip=clip))
    norm = outcome.reports[0].gradient_norm
    assert norm > 1e-3
    assert float(outcome.gradients[0].norm()) == pytest.approx(min(norm, clip), rel=1e-3)


def test_reports_count_steps_and_the_total_is_the_weighted_sum(unet: UNet, built: World) -> None:
    config, built_gates = replace(BOTH_WEIGHTED, steps=3), len(open_gates(built.pair).values)
    reports = trained(TinyDenoiser(unet), built, config).reports
    assert [(report.step, report.steps) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    for report in reports:
        cycle = report.losses["cycle_content"] + report.losses["cycle_style"]
        reconstruction = report.losses["reconstruction_content"] + report.losses["reconstruction_style"]
        assert report.losses["total"] == pytest.approx(
            config.cycle_weight * cycle
            + config.reconstruction_weight * reconstruction
            + config.layer_prior_weight * report.losses["layer_prior"],
            rel=1e-5,
        )
        assert report.seconds > 0
        assert sum(block.content_rank + block.style_rank for block in report.blocks) == built_gates
    assert reports[0].blocks != reports[-1].blocks


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_run(unet: UNet, name: str) -> None:
    config = replace(PRESETS[name], steps=2)
    built = world(LAYERS, ranks=(4, 4), basis=config.basis)
    roles = layer_roles(layout(), config.layer_prior)
    start = initial_gates(
        built.pair,
        roles,
        config.initialisation,
        config.content_threshold,
        config.style_threshold,
        torch.Generator().manual_seed(config.seed),
    )
    outcome = trained(TinyDenoiser(unet), built, config, start)
    assert len(outcome.reports) == 2
    assert all(math.isfinite(value) for report in outcome.reports for value in report.losses.values())
    assert float((outcome.gates.values - start.values).abs().max()) == pytest.approx(2 * config.learning_rate, rel=0.3)


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
