"""Several LoRAs in one merge against dense float64 sums of them: branches, gates, folds, masks, and a training."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.ldm_unet import UNet
from duolora_core import (
    MergeConfig,
    attach,
    combine,
    layer_roles,
    make_merged,
    make_pair,
    make_stack,
    open_gates,
    starting_gates,
    train,
)
from duolora_core.errors import LoraFileError, SettingsError
from duolora_core.merge.masks_file import gates_of, read_masks, routed, save_masks
from duolora_core.merge.overlap import block_overlaps
from duolora_core.merge.statistics import active_components
from duolora_core.merge.teachers import distillation_batches
from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.planner import MemoryPlanner
from factors import add, with_changes
from stacks import dense, pictures, stack_of
from tiny import TinyDenoiser, inputs, layout, run, weighted_modules
from training import ROLES, small_pair, trained
from worlds import dense_low_rank, random_gates, relative

TIGHT = 1e-6
ROUTED = MergeConfig(steps=2, router="on", cycle_weight=0.3, layer_prior_weight=0.1)


@pytest.mark.parametrize(("contents", "styles", "router"), [(2, 1, False), (1, 2, True), (5, 3, True)])
def test_every_branch_is_the_model_with_that_sum_in_its_weights(
    unet: UNet, contents: int, styles: int, router: bool
) -> None:
    stack, count = stack_of(contents, styles, router), contents + styles
    gates, ones, batch = random_gates(stack), open_gates(stack), inputs(2)
    plain = replace(stack, router={})
    rows = {label: dense(plain, ones, [float(i == j) for j in range(count)]) for i, label in enumerate(stack.labels)}
    rows |= {"base": {}, "sum": dense(plain, ones, [1.0] * count), "merge": dense(stack, gates, [1.0] * count)}
    with torch.no_grad():
        expected = {branch: run(with_changes(unet, changes), *batch) for branch, changes in rows.items()}
        with attach(weighted_modules(unet), stack, gates) as gated:
            for branch, output in expected.items():
                with gated.branches([branch, branch]):
                    assert relative(run(unet, *batch), output) < TIGHT, branch


@pytest.mark.parametrize("router", [False, True])
def test_a_fold_is_the_weighted_sum_of_all(router: bool) -> None:
    stack = stack_of(3, 2, router)
    gates = random_gates(stack)
    merged, each = make_merged(stack, gates), [0.5, 0.0, -1.0, 2.0, 1.0]
    folded = merged.with_strengths(each).fold(0.9, 1.1, dead_gate=0.0)
    expected = dense(stack, gates, [s * (0.9 if i < 3 else 1.1) for i, s in enumerate(each)])
    for name, delta in expected.items():
        assert relative(dense_low_rank(folded.layers[name]), delta) < TIGHT, name
    assert [part.name for part in merged.parts] == [f"{i}.safetensors" for i in range(5)]


def test_strengths_are_one_for_each_lora() -> None:
    stack = stack_of(2, 1)
    with pytest.raises(SettingsError, match="3 LoRAs, but 2 strengths"):
        make_merged(stack, open_gates(stack)).with_strengths([1.0, 1.0])


@pytest.mark.parametrize(("contents", "styles"), [(0, 2), (2, 0), (8, 1)])
def test_a_stack_has_both_sides_and_a_bound(contents: int, styles: int) -> None:
    with pytest.raises(SettingsError, match=rf"8 in all; here are {contents} and {styles}"):
        stack_of(contents, styles)


def test_a_combination_of_merges_is_the_sum_of_their_parts() -> None:
    one, two = stack_of(2, 1), stack_of(1, 2)
    gates = random_gates(one, 1), random_gates(two, 2)
    combined = combine([make_merged(one, gates[0]), make_merged(two, gates[1])], [0.5, 2.0])
    assert [part.side for part in combined.parts] == ["content"] * 3 + ["style"] * 3
    expected = add(dense(one, gates[0], [0.5] * 3), dense(two, gates[1], [2.0] * 3))
    folded = combined.fold(dead_gate=0.0)
    for name, delta in expected.items():
        assert relative(dense_low_rank(folded.layers[name]), delta) < TIGHT


def test_the_loras_of_a_side_take_turns_and_weigh_the_same(unet: UNet) -> None:
    stack, denoiser = stack_of(3, 2), TinyDenoiser(unet)
    content, style = pictures(3, 1), pictures(2, 50)
    config = MergeConfig(steps=12, cycle_weight=0.5)
    by_condition = {id(p.own): (side, p.lora) for side, some in (("content", content), ("style", style)) for p in some}
    seen: list[tuple[int, int]] = []
    with attach(denoiser.modules, stack, open_gates(stack)) as gated:
        planner = MemoryPlanner([MemoryPlan(8, "none")])
        for batch in islice(distillation_batches(denoiser, gated, content, style, config, planner), 12):
            (of_content, content_targets), (of_style, style_targets) = batch.students
            (_, c), (_, s) = by_condition[id(of_content.condition)], by_condition[id(of_style.condition)]
            seen.append((c, s))
            assert content_targets[0].weight == pytest.approx(3 / 2.5)
            assert style_targets[0].weight == pytest.approx(2 / 2.5)
            assert content_targets[0].term == "reconstruction_content"
    assert {pair: seen.count(pair) for pair in seen} == {(c, s): 2 for c in range(3) for s in range(2)}


def test_a_stack_of_two_is_the_pair_bit_for_bit(unet: UNet) -> None:
    built = small_pair()
    stack = make_stack(built.pair.contents, built.pair.styles, layout(), "factors")
    stack = replace(stack, basis=built.pair.basis)
    config = MergeConfig(steps=3, cycle_weight=0.3, layer_prior_weight=0.1)
    expected = trained(TinyDenoiser(unet), built, config, None, pictures(1, 1), pictures(1, 50)).gates
    gates, denoiser = open_gates(stack), TinyDenoiser(unet)
    with attach(denoiser.modules, stack, gates) as gated:
        list(train(denoiser, gated, pictures(1, 1), pictures(1, 50), ROLES, config))
    assert torch.equal(gates.values, expected.values)


def test_a_lora_without_a_picture_is_refused(unet: UNet) -> None:
    stack, denoiser = stack_of(2, 1), TinyDenoiser(unet)
    with (
        attach(denoiser.modules, stack, open_gates(stack)) as gated,
        pytest.raises(SettingsError, match="every content LoRA"),
    ):
        next(iter(train(denoiser, gated, pictures(1, 1), pictures(1, 50), ROLES, ROUTED)))


def test_a_training_of_eight_moves_the_gates_of_each(unet: UNet) -> None:
    stack, denoiser = stack_of(5, 3, router=True), TinyDenoiser(unet)
    config = MergeConfig(steps=15)
    roles = layer_roles(layout(), config.layer_prior)
    gates = starting_gates(stack, roles, config)
    with attach(denoiser.modules, stack, gates) as gated:
        reports = list(train(denoiser, gated, pictures(5, 1), pictures(3, 50), roles, config))
    moved = (gates.values - 1).abs()
    assert all(float(moved[gates.owners() == i].max()) > 1e-3 for i in range(8))
    assert [total for _, total in active_components(gates)] == [
        sum(stack.ranks(name)[i] for name in stack.names) for i in range(8)
    ]
    assert len(reports) == 15


@pytest.mark.parametrize("router", [False, True])
def test_masks_of_many_make_the_same_merge_again(router: bool, tmp_path: Path) -> None:
    stack = stack_of(3, 2, router)
    gates = random_gates(stack)
    held = read_masks(save_masks(tmp_path / "many.safetensors", gates, stack, {}))
    again = routed(held, replace(stack, router={}))
    assert torch.equal(gates_of(held, again).values, gates.values)
    assert again.router.keys() == stack.router.keys()
    assert all(torch.equal(again.router[name], stack.router[name]) for name in stack.router)


def test_masks_of_many_refuse_fewer_others_and_another_order(tmp_path: Path) -> None:
    stack = stack_of(2, 1)
    held = read_masks(save_masks(tmp_path / "many.safetensors", open_gates(stack), stack, {}))
    with pytest.raises(LoraFileError, match=r"from 2 content LoRAs \(0.safetensors, 1.safetensors\), but 1 are loaded"):
        gates_of(held, make_pair(stack.contents[0], stack.styles[0], layout(), "factors"))
    swapped = replace(stack, contents=stack.contents[::-1])
    with pytest.raises(LoraFileError, match=r"content LoRA 0\.safetensors"):
        gates_of(held, swapped)


def test_a_router_of_another_size_is_refused(tmp_path: Path) -> None:
    stack = stack_of(2, 1, router=True)
    broken = {name: router[:-1, :-1] for name, router in stack.router.items()}
    held = read_masks(save_masks(tmp_path / "m.safetensors", open_gates(stack), replace(stack, router=broken), {}))
    with pytest.raises(LoraFileError, match="its router does not fit its masks"):
        routed(held, stack)


@pytest.mark.parametrize("router", [False, True])
def test_overlaps_of_many_are_those_of_both_sums(router: bool) -> None:
    stack = stack_of(2, 2, router)
    gates = random_gates(stack)
    plain = replace(stack, router={})
    for block in block_overlaps(gates, stack):
        names = [name for name in stack.names if layout().layers[name].block.diffusers == block.name]
        for found, of, which in ((block.before, plain, open_gates(stack)), (block.after, stack, gates)):
            content, style = (dense(of, which, shares) for shares in ([1, 1, 0, 0], [0, 0, 1, 1]))
            norms = [sum(float(side[name].square().sum()) for name in names) for side in (content, style)]
            inner = sum(float((content[name] * style[name]).sum()) for name in names)
            assert (found.content, found.style) == pytest.approx(tuple(norms), rel=1e-5)
            assert found.inner == pytest.approx(inner, rel=1e-4, abs=1e-6 * max(norms))
