"""What a fold has to be: dense float64 sums of a pair, and a merge with text encoder parts and offsets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from duolora_core import Gates, MergedLora, PlacedLora, make_merged, make_pair
from duolora_core.lora.folded import FoldedLora
from factors import add, dense, random_factors, shapes_of
from tiny import TEXT_SHAPES, layout, pick
from worlds import World, dense_low_rank, placed_lora, random_gates, relative

LAYERS = pick(r"^(time_embed\.0|input_blocks\.3\.0\.op|middle_block\.0\.|middle_block\.1\..*attn2|out\.2)")


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


def text_world(seed: int) -> tuple[MergedLora, dict[str, Tensor], dict[str, Tensor]]:
    """A merge with text-encoder parts and offsets on both sides, and its dense text parts (content, style)."""
    names = list(TEXT_SHAPES)
    concepts: list[PlacedLora] = []
    deltas: list[dict[str, Tensor]] = []
    for i, text in enumerate((names[:3], names[1:])):
        factors = random_factors(shapes_of(LAYERS[:2]) | {name: TEXT_SHAPES[name] for name in text}, 2, seed + i)
        channels = layout().layers[LAYERS[i]].shape[0]
        offsets = {"middle_block.1.norm.diff": torch.full((64,), 1.0 + i), f"{LAYERS[i]}.diff_b": torch.ones(channels)}
        concepts.append(placed_lora(factors, offsets=offsets))
        deltas.append({"lora_" + name.replace(".", "_"): dense(factors[name]) for name in text})
    pair = make_pair(concepts[0], concepts[1], layout())
    return make_merged(pair, random_gates(pair, seed)), deltas[0], deltas[1]
