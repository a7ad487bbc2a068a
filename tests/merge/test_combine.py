"""Several merges as one: the weighted sum of their deltas, text parts and offsets, against dense float64 sums."""

from __future__ import annotations

import pytest
import torch

from duolora_core import Gates, MergedLora, combine, make_merged
from duolora_core.errors import SettingsError
from duolora_core.lora.folded import FoldedLora
from factors import add
from folds import LAYERS, check, scaled_dense, text_world
from worlds import World, dense_low_rank, random_gates, relative, world


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
    return MergedLora(merged.parts, {**merged.shapes, LAYERS[0]: (65, 17)})


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
