"""Training-free merges against their definitions on dense float64 matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duolora_core import LoraPair, LowRank, make_pair
from duolora_core.baselines.training_free import (
    average,
    block_split,
    null_space,
    right_directions,
    stack,
    with_layers,
)
from duolora_core.errors import SettingsError
from duolora_core.lora.folded import FoldedLora
from factors import add, dense, random_factors, shapes_of
from tiny import ATTENTION, TEXT_SHAPES, layout, pick
from worlds import World, dense_low_rank, dense_sides, placed_lora, relative, varied_world, world

TIGHT = 1e-5  # the factors and their SVD are float32
OFFSET = "middle_block.1.norm"


@pytest.fixture(scope="module")
def varied() -> World:
    return varied_world()


def assert_is(folded: FoldedLora, expected: Mapping[str, Tensor]) -> None:
    assert set(folded.layers) == set(expected)
    for name, low_rank in folded.layers.items():
        assert relative(dense_low_rank(low_rank), expected[name]) < TIGHT, name


def scaled(changes: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: factor * change for name, change in changes.items()}


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.7, -1.3)])
def test_stack_is_the_weighted_sum(varied: World, a: float, b: float) -> None:
    content, style = dense_sides(varied)
    folded = stack(varied.pair, content_strength=a, style_strength=b)
    assert_is(folded, add(scaled(content, a), scaled(style, b)))
    assert folded.error == 0.0


def test_average_is_half_the_sum(varied: World) -> None:
    assert_is(average(varied.pair), scaled(add(*dense_sides(varied)), 0.5))


def full_pair() -> tuple[LoraPair, dict[str, dict[str, Tensor]]]:
    """A pair that also changes text encoders and a norm layer; and the sums of those parts for equal strengths."""
    names = pick(r"^output_blocks\.[01]\.1\..*attn1\.to_q$")
    concepts = []
    text: dict[str, Tensor] = {}
    for seed in (1, 2):
        factors = {**random_factors(shapes_of(names), seed=seed), **random_factors(TEXT_SHAPES, seed=seed + 10)}
        concepts.append(placed_lora(factors, offsets={f"{OFFSET}.diff": torch.full((64,), float(seed))}))
        text = add(text, {f"lora_{name.replace('.', '_')}": dense(factors[name]) for name in TEXT_SHAPES})
    return make_pair(concepts[0], concepts[1], layout()), {"text": text, "norm": {OFFSET: torch.full((64,), 3.0)}}


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_text_and_offsets_follow_the_overall_strengths(factor: float) -> None:
    pair, sums = full_pair()
    merges = [stack(pair), null_space(pair)] if factor == 1 else [average(pair)]
    for folded in merges:
        assert folded.text.keys() == sums["text"].keys()
        for name, low_rank in folded.text.items():
            assert relative(dense_low_rank(low_rank), factor * sums["text"][name]) < TIGHT
        assert torch.allclose(folded.offsets[OFFSET, "weight"], factor * sums["norm"][OFFSET])
        assert {name: layout().layers[name].shape for name in (*pair.names, OFFSET)} == folded.shapes


def test_block_split_leaves_each_lora_in_its_block_only() -> None:
    pair, sums = full_pair()
    folded = block_split(pair)
    expected = {name: pair.content[name] for name in pair.content if name.startswith("output_blocks.0.1.")}
    expected |= {name: pair.style[name] for name in pair.style if name.startswith("output_blocks.1.1.")}
    assert len(expected) == len(pair.names)
    assert_is(folded, {name: dense_low_rank(low_rank) for name, low_rank in expected.items()})
    assert folded.offsets == {}
    assert folded.text.keys() == sums["text"].keys()


def test_block_split_refuses_what_would_leave_nothing(varied: World) -> None:
    with pytest.raises(SettingsError, match=r"content\.safetensors changes no layer in up_blocks\.0\.attentions\.0"):
        block_split(varied.pair)


def projector(change: Tensor, rank: int) -> Tensor:
    """V_k V_kᵀ of a dense matrix, (inputs, inputs)."""
    v = torch.linalg.svd(change, full_matrices=False).Vh[:rank]
    return v.T @ v


@pytest.mark.parametrize("removed", [0.0, 1 / 3, 1.0])
def test_null_space_is_its_definition(varied: World, removed: float) -> None:
    content, style = dense_sides(varied)
    expected = {
        name: change - removed * change @ projector(style[name], 3) if name in style else change
        for name, change in content.items()
    }
    assert_is(null_space(varied.pair, removed=removed), add(expected, style))


def test_the_hard_projection_leaves_nothing_in_the_styles_directions(varied: World) -> None:
    merged = null_space(varied.pair, removed=1.0)
    for name in set(varied.pair.content) & set(varied.pair.style):
        both, style = dense_low_rank(merged.layers[name]), dense_low_rank(varied.pair.style[name])
        inside = (both - style) @ projector(style, 3)
        assert float(inside.norm()) < TIGHT * float(both.norm())


def test_the_default_share_solves_the_papers_problem(varied: World) -> None:
    """X = ΔW_c (I - μ/(1+μ) P) is where ‖X - ΔW_c‖² + μ ‖X P‖² has no gradient, for μ = 0.5."""
    merged = null_space(varied.pair)
    content, style = dense_sides(varied)
    for name in set(content) & set(style):
        p = projector(style[name], 3)
        x = dense_low_rank(merged.layers[name]) - style[name]
        gradient = 2 * (x - content[name]) + 2 * 0.5 * x @ p
        assert float(gradient.norm()) < TIGHT * float(content[name].norm())


def test_right_directions_leave_out_what_is_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(20, 2, generator=generator), torch.randn(2, 30, generator=generator)
    twice = LowRank(torch.cat([up, up], dim=1), torch.cat([down, down]))  # rank 2 in four components
    v = right_directions(twice)
    assert v.shape == (30, 2)
    assert relative(v @ v.T, projector(down.double(), 2)) < TIGHT
    assert right_directions(LowRank(torch.zeros(20, 4), torch.cat([down, down]))).shape == (30, 0)


def test_null_space_without_a_trained_style_is_the_content() -> None:
    built = world(pick(ATTENTION)[:3])
    idle = {name: low_rank.scaled(0.0) for name, low_rank in built.pair.style.items()}
    assert_is(null_space(with_layers(built.pair, built.pair.content, idle), removed=1.0), dense_sides(built)[0])


@pytest.mark.parametrize("removed", [-0.1, 1.1])
def test_null_space_refuses_what_has_no_meaning(varied: World, removed: float) -> None:
    with pytest.raises(SettingsError, match="removed"):
        null_space(varied.pair, removed=removed)


def test_nothing_changes_the_pair(varied: World) -> None:
    before = {name: low_rank.delta().clone() for name, low_rank in varied.pair.content.items()}
    for merge in (stack, average, null_space):
        merge(replace(varied.pair))
    assert all(torch.equal(varied.pair.content[name].delta(), change) for name, change in before.items())
