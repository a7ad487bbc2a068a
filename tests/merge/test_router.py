"""The router against the formula on moments that are taken by hand, and what a ridge regression must do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.ldm_unet import UNet
from duolora_core import LoraStack, LowRank, MergeConfig, attach, make_stack, open_gates
from duolora_core.errors import NotFiniteError
from duolora_core.merge.router import NOISE_LEVELS, RIDGE, SAMPLES, fit_router, with_router
from duolora_core.merge.workload import merge_workload
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from stacks import pictures, stack_of
from tiny import TinyDenoiser, layout
from training import LAYERS
from worlds import bare_lora, relative

ON = MergeConfig(router="on")
LINEAR = next(name for name in LAYERS if name.endswith("attn1.to_q"))


def planner(micro_batch: int = 4) -> MemoryPlanner:
    return MemoryPlanner([MemoryPlan(micro_batch, "none")])


def test_it_is_the_ridge_regression_of_the_moments_under_each_lora_alone(unet: UNet) -> None:
    """The moments are those of down · x where each LoRA runs alone, seen by a hook of our own on one linear layer."""
    stack, denoiser = stack_of(2, 1), TinyDenoiser(unet)
    content, style = pictures(2, 1), pictures(1, 50)
    down = torch.cat([lora.layers[LINEAR].down for lora in stack.loras if LINEAR in lora.layers]).double()
    inputs_seen: list[Tensor] = []
    handle = denoiser.modules[LINEAR].register_forward_pre_hook(lambda _module, args: inputs_seen.append(args[0]))
    try:
        with attach(denoiser.modules, stack, open_gates(stack)) as gated:
            found = fit_router(denoiser, gated, content, style, seed=5, planner=planner())[LINEAR]
    finally:
        handle.remove()
    seen = torch.cat(inputs_seen).double()  # (3 LoRAs · samples, tokens, in)
    assert len(seen) == 3 * NOISE_LEVELS * SAMPLES
    moments: list[Tensor] = []
    for own in seen.chunk(3):
        z = own.flatten(0, 1) @ down.T
        moments.append(z.T @ z / len(z))
    ranks = stack.ranks(LINEAR)
    whole = torch.stack(moments).sum(0)
    own_rows = torch.cat([moment.split(ranks)[i] for i, moment in enumerate(moments)])
    ridge = RIDGE * whole.diagonal().mean() * torch.eye(len(whole)).double()
    assert relative(found, own_rows @ torch.linalg.inv(whole + ridge)) < 1e-5


def test_every_layer_has_one_and_the_plan_changes_nothing(unet: UNet) -> None:
    stack, denoiser = stack_of(2, 2), TinyDenoiser(unet)
    routers: list[dict[str, Tensor]] = []
    for micro_batch in (1, 4):
        with attach(denoiser.modules, stack, open_gates(stack)) as gated:
            routers.append(fit_router(denoiser, gated, pictures(2, 1), pictures(2, 50), 0, planner(micro_batch)))
    assert list(routers[0]) == list(stack.names)
    for name, router in routers[0].items():
        assert router.shape == (sum(stack.ranks(name)),) * 2
        assert relative(routers[1][name], router) < 1e-4, name


def test_loras_that_never_meet_are_left_as_they_are(unet: UNet) -> None:
    """Each LoRA in layers of its own: nothing to tell apart, and the router is 1 / (1 + ridge) at the most."""
    first, second = LAYERS[1:3]
    shapes = layout().layers
    alone = [
        bare_lora({name: LowRank(torch.randn(shapes[name].shape[0], 2), torch.randn(2, _inputs(shapes[name].shape)))})
        for name in (first, second)
    ]
    stack = make_stack(alone[:1], alone[1:], layout(), "factors")
    routed = with_router(TinyDenoiser(unet), stack, pictures(1, 1), pictures(1, 50), ON)
    # With the moments of both runs in G and those of the own run in Q, each component keeps its own run's share.
    for name, router in routed.router.items():
        eigenvalues = torch.linalg.eigvals(router.double()).real
        assert bool(((eigenvalues > 0) & (eigenvalues < 1)).all()), name


def _inputs(shape: tuple[int, ...]) -> int:
    return torch.Size(shape[1:]).numel()


def test_it_is_there_where_the_config_asks_for_it(unet: UNet) -> None:
    denoiser = TinyDenoiser(unet)

    def routed(stack: LoraStack, config: MergeConfig, contents: int) -> bool:
        return bool(with_router(denoiser, stack, pictures(contents, 1), pictures(1, 50), config).router)

    assert not routed(stack_of(1, 1), MergeConfig(), 1)
    assert routed(stack_of(2, 1), MergeConfig(), 2)
    assert not routed(stack_of(2, 1), MergeConfig(router="off"), 2)


def test_a_layer_that_nothing_reaches_stays_open(unet: UNet) -> None:
    stack = stack_of(2, 1)
    silent = [
        replace(lora, layers={n: LowRank(p.up, 0 * p.down) for n, p in lora.layers.items()}) for lora in stack.loras
    ]
    stack = replace(stack, contents=tuple(silent[:2]), styles=tuple(silent[2:]))
    routed = with_router(TinyDenoiser(unet), stack, pictures(2, 1), pictures(1, 50), ON)
    assert all(torch.equal(router, torch.eye(len(router))) for router in routed.router.values())


def test_numbers_that_are_not_finite_are_refused(unet: UNet) -> None:
    stack, denoiser = stack_of(2, 1), TinyDenoiser(unet)
    module: nn.Module = denoiser.modules[LINEAR]
    handle = module.register_forward_pre_hook(lambda _module, args: (args[0] * float("inf"),))
    try:
        with pytest.raises(NotFiniteError, match="not a finite number"):
            with_router(denoiser, stack, pictures(2, 1), pictures(1, 50), ON)
    finally:
        handle.remove()


def test_the_estimate_counts_the_merges_own_up_before_there_is_a_router() -> None:
    """The plan is made first; `stacked` then holds a second up in every layer."""
    stack = stack_of(2, 1)
    plain, routed = (merge_workload(stack, [(8, 8)] * 2, MergeConfig(router=on)) for on in ("off", "auto"))
    ups = sum(sum(stack.ranks(name)) * layout().layers[name].shape[0] for name in stack.names)
    assert routed.factors - plain.factors == ups
