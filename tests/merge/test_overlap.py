"""Overlap and layer kinds against dense float64 sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duolora_core import open_gates
from duolora_core.merge.overlap import BlockOverlap, Overlap, block_overlaps, whole_overlap
from duolora_core.merge.statistics import kind_statistics
from duolora_core.model.layer_kinds import KINDS, layer_kind
from masks import LAYERS
from tiny import layout, pick
from worlds import World, dense_low_rank, random_gates, world


@pytest.fixture(scope="module")
def built() -> World:
    """The first layer is the content LoRA's alone, the last the style LoRA's."""
    return world(LAYERS[:-1], LAYERS[1:], ranks=(3, 2))


def block_of(name: str) -> str:
    return layout().layers[name].block.diffusers


def dense_cosine(pairs: list[tuple[Tensor, Tensor]]) -> float:
    content, style = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    return float(content @ style / (content.norm() * style.norm()))


def changes(built: World, name: str, gated: bool) -> tuple[Tensor, Tensor]:
    """Both dense changes of a layer, zeros where a LoRA does not cover it."""
    gates, pair = random_gates(built.pair), built.pair
    known = [
        dense_low_rank(side[name], gate(name) if gated else None)
        for side, gate in ((pair.content, gates.content), (pair.style, gates.style))
        if name in side
    ]
    if len(known) == 2:
        return known[0], known[1]
    return (known[0], torch.zeros_like(known[0])) if name in pair.content else (torch.zeros_like(known[0]), known[0])


def test_overlaps_are_those_of_the_dense_changes(built: World) -> None:
    overlaps = block_overlaps(random_gates(built.pair), built.pair)
    assert [each.name for each in overlaps] == list(dict.fromkeys(block_of(name) for name in built.pair.names))
    for each in overlaps:
        names = [name for name in built.pair.names if block_of(name) == each.name]
        for gated, overlap in ((False, each.before), (True, each.after)):
            dense = [changes(built, name, gated) for name in names]
            for side, squared in enumerate((overlap.content, overlap.style)):
                assert squared == pytest.approx(sum(float(both[side].square().sum()) for both in dense), rel=1e-5)
            if overlap.cosine is not None:
                assert overlap.cosine == pytest.approx(dense_cosine(dense), rel=1e-4, abs=1e-6)
    for gated, overlap in ((False, whole_overlap(overlaps).before), (True, whole_overlap(overlaps).after)):
        dense = [changes(built, name, gated) for name in built.pair.names]
        assert overlap.cosine == pytest.approx(dense_cosine(dense), rel=1e-4, abs=1e-6)


def test_a_lora_is_all_of_itself_and_keeps_what_open_gates_leave() -> None:
    one = world(LAYERS, LAYERS, ranks=(3, 3))
    same = replace(one.pair, styles=one.pair.contents)
    gates = open_gates(same)
    gates.values[~gates.is_content()] = -0.25
    for each in block_overlaps(gates, same):
        assert each.before.cosine == pytest.approx(1.0)
        assert each.after.cosine == pytest.approx(-1.0)
        assert each.content_kept == pytest.approx(1.0)
        assert each.style_kept == pytest.approx(0.25)


def test_nothing_has_no_direction() -> None:
    nothing = BlockOverlap("a", Overlap(0.0, 1.0, 0.0), Overlap(0.0, 0.0, 0.0))
    assert nothing.before.cosine is None
    assert nothing.content_kept is None
    assert nothing.style_kept == 0.0


def test_kind_means_make_up_the_whole(built: World) -> None:
    gates = random_gates(built.pair)
    rows = kind_statistics(gates, built.pair)
    assert [(row.block, row.kind) for row in rows] == list(
        dict.fromkeys((block_of(name), layer_kind(name)) for name in built.pair.names)
    )
    for row in rows:
        names = [n for n in built.pair.names if (block_of(n), layer_kind(n)) == (row.block, row.kind)]
        for mean, gate in ((row.content_mean, gates.content), (row.style_mean, gates.style)):
            values = torch.cat([gate(name) for name in names]).abs()
            assert mean == (pytest.approx(float(values.mean())) if len(values) else None)


def test_every_layer_has_its_kind() -> None:
    kinds = {kind: [name for name in pick(".") if layer_kind(name) == kind] for kind in KINDS}
    assert all(".attn1." in name for name in kinds["self-attention"])
    assert all(".attn2." in name for name in kinds["cross-attention"])
    assert all("emb" in name for name in kinds["embedding"])
    convolutions = {name for name, layer in layout().layers.items() if len(layer.shape) == 4}
    assert set(kinds["convolution"]) == convolutions - set(kinds["projection"])
    assert all(kinds.values())
