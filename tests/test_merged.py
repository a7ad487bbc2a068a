"""Folding and combining against dense float64 sums."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from duolora_core import Concept, Gates, LowRank, MergedLora, attach, combine, make_merged, make_pair, open_gates
from duolora_core.errors import SettingsError
from duolora_core.gated_lora import Row
from duolora_core.gates import DEAD_GATE
from duolora_core.merged import FoldedLora, unet_part
from worlds import (
    TEXT_SHAPES,
    VARIED,
    World,
    add,
    concept,
    dense,
    dense_low_rank,
    inputs,
    layout,
    pick,
    random_factors,
    random_gates,
    relative,
    run,
    shapes_of,
    tiny_unet,
    weighted_modules,
    with_changes,
    world,
)

LAYERS = pick(r"^(time_embed\.0|input_blocks\.3\.0\.op|middle_block\.0\.|middle_block\.1\..*attn2|out\.2)")
ONLY_CONTENT, ONLY_STYLE = LAYERS[0], LAYERS[-1]


@pytest.fixture(scope="module")
def built() -> World:
    return world(LAYERS[:-1], LAYERS[1:], ranks=(5, 3))


def scaled_dense(built: World, gates: Gates, content: float, style: float) -> dict[str, Tensor]:
    """content · U_c diag(m_c) D_c + style · U_s diag(m_s) D_s of every layer, float64."""
    only_content, only_style = gates.copy(), gates.copy()
    only_content.values[~gates.is_content()] = 0
    only_style.values[gates.is_content()] = 0
    weighted = ((content, built.dense(only_content)), (style, built.dense(only_style)))
    return add(*({name: factor * delta for name, delta in side.items()} for factor, side in weighted))


def check(folded: FoldedLora, expected: Mapping[str, Tensor], tolerance: float = 1e-6) -> None:
    for name, delta in expected.items():
        if float(delta.norm()) == 0:
            assert name not in folded.layers
        else:
            assert relative(dense_low_rank(folded.layers[name]), delta) < tolerance, name
    assert folded.layers.keys() <= expected.keys()


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


@pytest.mark.parametrize(("content", "style", "row"), [(1.0, 1.0, "sum"), (1.0, 0.0, "content"), (0.0, 1.0, "style")])
def test_folded_open_gates_run_as_the_attached_row(content: float, style: float, row: Row) -> None:
    names = pick(VARIED)
    built, unet, batch = world(names[1:], names[:-1], ranks=(4, 2)), tiny_unet(), inputs(2)
    gates = open_gates(built.pair)
    folded = make_merged(built.pair, gates).fold(content, style)
    with torch.no_grad():
        with attach(weighted_modules(unet), built.pair, gates) as gated, gated.rows([row, row]):
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


def text_world(seed: int) -> tuple[MergedLora, dict[str, Tensor], dict[str, Tensor]]:
    """A merge with text-encoder parts and offsets on both sides, and its dense text parts (content, style)."""
    names = list(TEXT_SHAPES)
    concepts: list[Concept] = []
    deltas: list[dict[str, Tensor]] = []
    for i, text in enumerate((names[:3], names[1:])):
        factors = random_factors(shapes_of(LAYERS[:2]) | {name: TEXT_SHAPES[name] for name in text}, 2, seed + i)
        channels = layout().layers[LAYERS[i]].shape[0]
        offsets = {"middle_block.1.norm.diff": torch.full((64,), 1.0 + i), f"{LAYERS[i]}.diff_b": torch.ones(channels)}
        concepts.append(concept(factors, offsets=offsets))
        deltas.append({"lora_" + name.replace(".", "_"): dense(factors[name]) for name in text})
    pair = make_pair(concepts[0], concepts[1], layout())
    return make_merged(pair, random_gates(pair, seed)), deltas[0], deltas[1]


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
    one = concept(factors, offsets={"middle_block.1.norm.diff": torch.ones(64)})
    other = concept(random_factors(shapes_of(LAYERS[1:3]), 3))
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


def worlds(count: int) -> list[tuple[World, Gates, MergedLora]]:
    """Merges that cover different layers with different ranks."""
    made = []
    for i in range(count):
        built = world(LAYERS[i : i + 4], LAYERS[i + 1 : i + 6], ranks=(2 + i, 3), seed=10 * i)
        gates = random_gates(built.pair, seed=i)
        made.append((built, gates, make_merged(built.pair, gates, {"number": i})))
    return made


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, -0.3], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
@pytest.mark.parametrize(("content", "style"), [(1.0, 1.0), (0.8, -1.2), (0.0, 1.0)])
def test_combine_is_the_weighted_sum(weights: list[float] | None, content: float, style: float) -> None:
    made = worlds(3)
    folded = combine([merged for _, _, merged in made], weights).fold(content, style, dead_gate=0.0)
    alphas = weights or [1 / 3] * 3
    expected = add(
        *(
            {name: alpha * delta for name, delta in scaled_dense(built, gates, content, style).items()}
            for alpha, (built, gates, _) in zip(alphas, made, strict=True)
            if alpha
        )
    )
    check(folded, {name: delta for name, delta in expected.items() if float(delta.norm())})


def test_combining_one_is_itself() -> None:
    [(built, gates, merged)] = worlds(1)
    check(combine([merged]).fold(dead_gate=0.0), scaled_dense(built, gates, 1.0, 1.0))


def test_a_merge_of_weight_zero_leaves_no_trace() -> None:
    made = [merged for _, _, merged in worlds(2)]
    folded, alone = combine(made, [1.0, 0.0]).fold(), made[0].fold()
    assert ranks(folded) == ranks(alone)


def ranks(folded: FoldedLora) -> dict[str, int]:
    return {name: low_rank.rank for name, low_rank in folded.layers.items()}


def test_combine_sums_text_and_offsets() -> None:
    (one, c1, s1), (two, c2, s2) = text_world(0), text_world(20)
    folded = combine([one, two], [0.5, 2.0]).fold(0.9, 1.1)
    weighted = ((0.5 * 0.9, c1), (0.5 * 1.1, s1), (2 * 0.9, c2), (2 * 1.1, s2))
    expected = add(*({name: factor * delta for name, delta in side.items()} for factor, side in weighted))
    assert folded.text.keys() == expected.keys()
    for name, delta in expected.items():
        assert relative(dense_low_rank(folded.text[name]), delta) < 1e-6
    norm = folded.offsets["middle_block.1.norm", "weight"]
    assert torch.allclose(norm, torch.full((64,), (0.5 + 2.0) * (0.9 * 1.0 + 1.1 * 2.0)))


def test_combine_keeps_recipes_and_weights() -> None:
    combined = combine([merged for _, _, merged in worlds(2)], [0.25, 4.0])
    assert combined.recipe == {
        "combined": [{"weight": 0.25, "merge": {"number": 0}}, {"weight": 4.0, "merge": {"number": 1}}]
    }


def other_model() -> MergedLora:
    """A merge whose first layer is of another width."""
    [(_, _, merged)] = worlds(1)
    return MergedLora(merged.layers, {}, {}, {}, {}, {**merged.shapes, LAYERS[0]: (65, 17)})


@pytest.mark.parametrize(
    ("count", "weights", "match"),
    [(0, None, "Nothing to combine"), (2, [1.0], "2 merged LoRAs, but 1 weights"), (1, [], "1 merged LoRAs, but 0")],
)
def test_combine_refuses_a_wrong_count(count: int, weights: list[float] | None, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        combine([merged for _, _, merged in worlds(count)], weights)


def test_combine_refuses_merges_for_different_models() -> None:
    [(_, _, merged)] = worlds(1)
    with pytest.raises(SettingsError, match=rf"different models: layer {LAYERS[0]} has shape \(64, 16\).*\(65, 17\)"):
        combine([merged, other_model()])


def test_folded_layers_do_not_share_memory_with_the_merge(built: World) -> None:
    merged = make_merged(built.pair, open_gates(built.pair))
    before = dense_low_rank(merged.fold().layers[LAYERS[1]])
    first: LowRank = merged.fold().layers[LAYERS[1]]
    first.up.zero_()
    first.down.zero_()
    assert torch.equal(dense_low_rank(merged.fold().layers[LAYERS[1]]), before)
