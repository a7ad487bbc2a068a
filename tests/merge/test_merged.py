"""Folding and combining against dense float64 sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from duolora_core import (
    LowRank,
    attach,
    combine,
    kohya_state_dict,
    make_merged,
    make_pair,
    match_to_model,
    open_gates,
    read_lora,
)
from duolora_core.errors import ModelMismatchError, SettingsError
from duolora_core.lora.folded import FoldedLora, unet_part
from duolora_core.merge.gates import DEAD_GATE
from duolora_core.merge.merged import joined
from duolora_core.model.branches import Branch
from factors import add, random_factors, shapes_of, with_changes
from folds import LAYERS, check, scaled_dense, text_world
from tiny import TEXT_SHAPES, VARIED, inputs, layout, pick, run, tiny_unet, weighted_modules
from worlds import World, dense_low_rank, placed_lora, random_gates, relative, world

ONLY_CONTENT, ONLY_STYLE = LAYERS[0], LAYERS[-1]


@pytest.fixture(scope="module")
def built() -> World:
    return world(LAYERS[:-1], LAYERS[1:], ranks=(5, 3))


STRENGTHS = [(1.0, 1.0), (0.9, 1.1), (-0.5, 1.0), (1.0, -2.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize(("content", "style"), STRENGTHS)
def test_fold_is_the_strength_weighted_sum(built: World, content: float, style: float) -> None:
    gates = random_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(content, style, dead_gate=0.0)
    check(folded, scaled_dense(built, gates, content, style))
    assert folded.error == 0.0


@pytest.mark.parametrize(
    ("strengths", "absent", "rank"), [((0.0, 1.0), ONLY_CONTENT, 3), ((1.0, 0.0), ONLY_STYLE, 5), ((1.0, 1.0), "", 8)]
)
def test_a_side_of_strength_zero_leaves_no_trace(
    built: World, strengths: tuple[float, float], absent: str, rank: int
) -> None:
    folded = make_merged(built.pair, open_gates(built.pair)).fold(*strengths)
    assert absent not in folded.layers
    assert folded.layers["middle_block.0.in_layers.2"].rank == rank
    assert set(folded.layers) == {name for name in LAYERS if name != absent}


@pytest.mark.parametrize(
    ("content", "style", "branch"), [(1.0, 1.0, "sum"), (1.0, 0.0, "content"), (0.0, 1.0, "style")]
)
def test_folded_open_gates_run_as_the_attached_row(content: float, style: float, branch: Branch) -> None:
    names = pick(VARIED)
    built, unet, batch = world(names[1:], names[:-1], ranks=(4, 2)), tiny_unet(), inputs(2)
    gates = open_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(content, style)
    with torch.no_grad():
        with attach(weighted_modules(unet), built.pair, gates) as gated, gated.branches([branch, branch]):
            attached = run(unet, *batch)
        deltas = {name: dense_low_rank(low_rank) for name, low_rank in folded.layers.items()}
        assert relative(run(with_changes(unet, deltas), *batch), attached) < 1e-6


def true_error(folded: FoldedLora, whole: Mapping[str, Tensor]) -> float:
    """‖ΔW - ΔW'‖ / ‖ΔW‖ over all layers together, a layer that was dropped altogether counting in full."""
    kept = {name: dense_low_rank(low_rank) for name, low_rank in folded.layers.items()}
    lost = sum(float((delta - kept.get(name, torch.zeros(()))).square().sum()) for name, delta in whole.items())
    return (lost / sum(float(delta.square().sum()) for delta in whole.values())) ** 0.5


@pytest.mark.parametrize("max_rank", [1, 2, 5, 7])
@pytest.mark.parametrize("dead_gate", [0.0, 0.5])
@pytest.mark.parametrize(("content", "style"), [(1.0, 1.0), (0.7, -1.3)])
def test_max_rank_tells_its_true_error(
    built: World, max_rank: int, dead_gate: float, content: float, style: float
) -> None:
    """Also where components are dropped for their gate first: what is lost then overlaps with what truncation loses."""
    gates = random_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(content, style, max_rank, dead_gate)
    assert max(low_rank.rank for low_rank in folded.layers.values()) == max_rank
    assert folded.error > 0.01
    assert folded.error == pytest.approx(true_error(folded, scaled_dense(built, gates, content, style)), rel=1e-4)


def test_max_rank_keeps_the_nearest_of_that_rank(built: World) -> None:
    gates = random_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(max_rank=2, dead_gate=0.0)
    for name, delta in scaled_dense(built, gates, 1.0, 1.0).items():
        tail = torch.linalg.svdvals(delta)[2:].norm() / delta.norm()
        assert relative(dense_low_rank(folded.layers[name]), delta) == pytest.approx(float(tail), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("max_rank", [8, 100])
def test_a_max_rank_that_is_enough_costs_nothing(built: World, max_rank: int) -> None:
    gates = random_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(max_rank=max_rank, dead_gate=0.0)
    check(folded, scaled_dense(built, gates, 1.0, 1.0))
    assert folded.error == 0.0


@pytest.mark.parametrize("max_rank", [0, -1])
def test_a_max_rank_below_one_is_refused(built: World, max_rank: int) -> None:
    with pytest.raises(SettingsError, match=f"max_rank is {max_rank}"):
        make_merged(built.pair, open_gates(built.pair)).fold(max_rank=max_rank)


def test_dead_components_are_dropped_and_counted_in_the_error(built: World) -> None:
    gates = random_gates(built.pair)
    gates.values[gates.values.abs() < 0.1] = 0.1
    gates.values[::2] = 0.9 * DEAD_GATE
    gates.values[1] = -DEAD_GATE * 1.1  # small, negative and alive
    folded = make_merged(built.pair, gates).fold()
    for name in built.pair.names:
        alive = int((gates.values[gates.slots[name].whole].abs() >= DEAD_GATE).sum())
        assert folded.layers[name].rank == alive
    assert folded.error == pytest.approx(true_error(folded, scaled_dense(built, gates, 1.0, 1.0)), rel=1e-4)
    assert folded.error > 1e-4


def test_a_layer_of_dead_components_only_is_left_out(built: World) -> None:
    gates = open_gates(built.pair)
    gates.values[gates.slots[LAYERS[2]].whole] = 0.0
    folded = make_merged(built.pair, gates).fold(dead_gate=0.0)
    assert set(folded.layers) == set(LAYERS) - {LAYERS[2]}
    assert folded.error == 0.0
    gates.values.zero_()
    assert make_merged(built.pair, gates).fold().layers == {}


def test_a_merge_is_a_snapshot(built: World) -> None:
    gates = open_gates(built.pair)
    merged = make_merged(built.pair, gates, {"steps": 3})
    gates.values.zero_()
    check(merged.fold(), scaled_dense(built, open_gates(built.pair), 1.0, 1.0))
    assert merged.recipe == {"steps": 3}


@pytest.mark.parametrize(("content", "style"), STRENGTHS)
def test_text_parts_and_offsets_follow_the_strengths_alone(content: float, style: float) -> None:
    merged, content_text, style_text = text_world(0)
    folded = merged.fold(content, style)
    weighted = [(factor, side) for factor, side in ((content, content_text), (style, style_text)) if factor]
    expected = add(*({name: factor * delta for name, delta in side.items()} for factor, side in weighted))
    assert folded.text.keys() == expected.keys()
    for name, delta in expected.items():
        assert relative(dense_low_rank(folded.text[name]), delta) < 1e-6
    norm = folded.offsets.get(("middle_block.1.norm", "weight"), torch.zeros(64))
    assert torch.allclose(norm, torch.full((64,), content * 1.0 + style * 2.0))
    assert ((LAYERS[0], "bias") in folded.offsets) == (content != 0)
    assert ((LAYERS[1], "bias") in folded.offsets) == (style != 0)


def test_the_unet_part_of_a_lora_is_a_merge_whose_other_side_is_off() -> None:
    """The same layers and offsets, no text encoder part, and the shape of everything that is changed."""
    text = next(iter(TEXT_SHAPES))
    factors = random_factors(shapes_of(LAYERS[:2]) | {text: TEXT_SHAPES[text]}, 2)
    one = placed_lora(factors, offsets={"middle_block.1.norm.diff": torch.ones(64)})
    other = placed_lora(random_factors(shapes_of(LAYERS[1:3]), 3))
    part = unet_part(one, layout())
    pair = make_pair(one, other, layout())
    folded = make_merged(pair, open_gates(pair)).fold(1.0, 0.0)
    assert one.text and not part.text
    assert part.layers.keys() == folded.layers.keys()
    for name, low_rank in part.layers.items():
        assert relative(dense_low_rank(low_rank), dense_low_rank(folded.layers[name])) < 1e-6
    assert part.offsets.keys() == folded.offsets.keys() == {("middle_block.1.norm", "weight")}
    assert torch.equal(part.offsets["middle_block.1.norm", "weight"], torch.ones(64))
    assert part.shapes == {name: layout().layers[name].shape for name in (*LAYERS[:2], "middle_block.1.norm")}


def test_folded_layers_do_not_share_memory_with_the_merge(built: World) -> None:
    merged = make_merged(built.pair, open_gates(built.pair))
    before = dense_low_rank(merged.fold().layers[LAYERS[1]])
    first: LowRank = merged.fold().layers[LAYERS[1]]
    first.up.zero_()
    first.down.zero_()
    assert torch.equal(dense_low_rank(merged.fold().layers[LAYERS[1]]), before)


@pytest.mark.parametrize(("content", "style"), STRENGTHS)
def test_joined_loras_are_their_sum_with_a_strength_for_each(built: World, content: float, style: float) -> None:
    sides = [unet_part(concept, built.pair.layout) for concept in (built.pair.content_lora, built.pair.style_lora)]
    whole = joined(sides[0], sides[1]).fold(content, style)
    check(whole, scaled_dense(built, open_gates(built.pair), content, style))
    alone = joined(None, sides[1]).fold(content, style)
    check(alone, scaled_dense(built, open_gates(built.pair), 0.0, style))


def test_text_offsets_follow_the_strengths_and_every_merge_and_file(tmp_path: Path) -> None:
    """Through a fold, a combination, two ordinary LoRAs as one, and a saved file."""
    key = ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.layer_norm1", "weight")
    sides = [
        replace(
            placed_lora(random_factors(shapes_of(LAYERS[:1]), 2, seed)), text_offsets={key: torch.full((20,), value)}
        )
        for seed, value in ((1, 1.0), (2, 3.0))
    ]
    pair = make_pair(sides[0], sides[1], layout())
    merged = make_merged(pair, open_gates(pair))
    ways = [merged, combine([merged, merged]), joined(merged.fold(1.0, 0.0), merged.fold(0.0, 1.0))]
    for way in ways:
        assert torch.allclose(way.fold(0.5, 2.0).text_offsets[key], torch.full((20,), 0.5 * 1.0 + 2.0 * 3.0))
    save_file(kohya_state_dict(merged.fold()), tmp_path / "a.safetensors")
    assert torch.equal(
        match_to_model(read_lora(tmp_path / "a.safetensors"), layout()).text_offsets[key], torch.full((20,), 4.0)
    )


def test_text_layers_of_two_shapes_are_refused_by_name() -> None:
    key = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    one, other = (
        replace(
            placed_lora(random_factors(shapes_of(LAYERS[:1]), 2)),
            text={key: LowRank(torch.ones(6, 1), torch.ones(1, n))},
        )
        for n in (4, 5)
    )
    with pytest.raises(ModelMismatchError) as caught:
        make_pair(one, other, layout())
    assert all(word in str(caught.value) for word in (key, "(6, 4)", "(6, 5)"))
    pairs = [make_pair(side, side, layout()) for side in (one, other)]
    with pytest.raises(SettingsError, match=key):
        combine([make_merged(pair, open_gates(pair)) for pair in pairs])
