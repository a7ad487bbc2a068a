"""The slider and the block dials against strengths and dense float64 sums."""

from __future__ import annotations

import pytest
import torch

from duolora_core import make_merged
from duolora_core.errors import SettingsError
from duolora_core.merge.block_weights import BlockWeights, Side, scale_blocks, slider_strengths, strength_share
from folds import LAYERS, check, scaled_dense, text_world
from worlds import World, random_gates, world

CHOSEN = frozenset(LAYERS[1:4])


@pytest.fixture(scope="module")
def built() -> World:
    return world(LAYERS[:-1], LAYERS[1:], ranks=(5, 3))


def test_the_slider_ends_in_one_lora_and_holds_both_in_its_middle() -> None:
    assert slider_strengths(0.0) == (1.0, 0.0)
    assert slider_strengths(0.5) == (1.0, 1.0)
    assert slider_strengths(1.0) == (0.0, 1.0)
    for balance in (0.0, 0.2, 0.45):
        content, style = slider_strengths(balance)
        assert slider_strengths(1 - balance) == pytest.approx((style, content))
        assert content == 1.0 > style == 2 * balance


@pytest.mark.parametrize("balance", [-0.01, 1.01, float("nan")])
def test_a_balance_beyond_the_ends_is_refused(balance: float) -> None:
    with pytest.raises(SettingsError, match="content only"):
        slider_strengths(balance)


@pytest.mark.parametrize("side", ["both", "content", "style"])
@pytest.mark.parametrize(("factor", "elsewhere"), [(0.0, 1.0), (2.0, 1.0), (-0.5, 0.7), (1.0, 0.0)])
def test_turned_blocks_are_the_scaled_sum(built: World, side: Side, factor: float, elsewhere: float) -> None:
    gates = random_gates(built.pair)
    turned = scale_blocks(make_merged(built.pair, gates), BlockWeights(CHOSEN, factor, elsewhere, side))
    by_factor = {
        scale: scaled_dense(built, gates, scale if side != "style" else 1.0, scale if side != "content" else 1.0)
        for scale in (factor, elsewhere)
    }
    expected = {name: by_factor[factor if name in CHOSEN else elsewhere][name] for name in built.pair.names}
    check(turned.fold(dead_gate=0.0), expected)


def test_blocks_turned_by_one_fold_into_the_same_tensors(built: World) -> None:
    merged = make_merged(built.pair, random_gates(built.pair))
    plain, turned = merged.fold(0.9, 1.1), scale_blocks(merged, BlockWeights(CHOSEN, 1.0)).fold(0.9, 1.1)
    assert plain.layers.keys() == turned.layers.keys()
    for name, low_rank in plain.layers.items():
        assert torch.equal(low_rank.up, turned.layers[name].up)
        assert torch.equal(low_rank.down, turned.layers[name].down)


@pytest.mark.parametrize("side", ["both", "content", "style"])
def test_offsets_turn_with_their_block_and_text_parts_stay(side: Side) -> None:
    merged, *_ = text_world(0)
    turned = scale_blocks(merged, BlockWeights({LAYERS[0]}, 0.5, 3.0, side))
    for part, before in zip(turned.parts, merged.parts, strict=True):
        assert part.offsets.keys() == before.offsets.keys()
        for (name, what), value in part.offsets.items():
            factor = (0.5 if name == LAYERS[0] else 3.0) if side in ("both", part.side) else 1.0
            assert torch.equal(value, factor * before.offsets[name, what])
        assert part.text is before.text


def test_an_offset_turned_off_leaves_no_trace() -> None:
    merged, *_ = text_world(0)
    assert (LAYERS[0], "bias") in merged.parts[0].offsets
    turned = scale_blocks(merged, BlockWeights({LAYERS[0]}, 0.0))
    assert (LAYERS[0], "bias") not in turned.parts[0].offsets


def test_shares_of_strength_add_up_to_the_whole(built: World) -> None:
    gates = random_gates(built.pair)
    merged, rest = make_merged(built.pair, gates), frozenset(LAYERS) - CHOSEN
    for side, strengths in (("content", (1.0, 0.0)), ("style", (0.0, 1.0))):
        dense = scaled_dense(built, gates, *strengths)
        squared = {name: float(delta.square().sum()) for name, delta in dense.items()}
        within = sum(value for name, value in squared.items() if name in CHOSEN) / sum(squared.values())
        assert strength_share(merged, CHOSEN, side) == pytest.approx(within, rel=1e-6)  # type: ignore[arg-type]
        assert strength_share(merged, CHOSEN, side) + strength_share(merged, rest, side) == pytest.approx(1.0)  # type: ignore[arg-type]
