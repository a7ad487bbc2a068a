"""Column separation: exact counts, content first, style elsewhere, and scores against the dense definition."""

from __future__ import annotations

import pytest
import torch

from duolora_core.train_lora.column_masks import (
    clamp_columns,
    column_overlap,
    column_scores,
    grow_masks,
    separate_columns,
)
from lora_trainings import LAYERS, grown
from worlds import relative

NONE, ALL = torch.zeros(20), torch.ones(20)


def scores(seed: int) -> torch.Tensor:
    return torch.rand(20, generator=torch.Generator().manual_seed(seed))


def test_each_growth_opens_exactly_the_best_of_what_is_closed() -> None:
    content, style = NONE, NONE
    for turn in range(3):
        before, of_content = content, scores(turn)
        content, style = grow_masks(content, style, of_content, scores(10 + turn), 0.1)
        opened = (content - before).nonzero().flatten().tolist()
        closed = [i for i in range(20) if before[i] == 0]
        assert sorted(opened) == sorted(sorted(closed, key=lambda i: -float(of_content[i]))[:2])
    assert (int(content.sum()), int(style.sum())) == (6, 6)


def test_content_chooses_first_and_style_avoids_its_columns() -> None:
    same = scores(0)
    content, style = grow_masks(NONE, NONE, same, same, 0.25)
    best = same.argsort(descending=True)
    assert set(content.nonzero().flatten().tolist()) == set(best[:5].tolist())
    assert set(style.nonzero().flatten().tolist()) == set(best[5:10].tolist())


def test_equal_scores_still_give_exact_counts() -> None:
    """The authors' threshold opens everything or nothing here."""
    content, style = grow_masks(NONE, NONE, torch.full((20,), 1e-12), torch.zeros(20), 0.1)
    assert (int(content.sum()), int(style.sum()), int((content * style).sum())) == (2, 2, 0)


def test_style_shares_columns_only_when_none_is_left() -> None:
    content = NONE.index_fill(0, torch.arange(14), 1.0)
    grown_content, style = grow_masks(content, NONE, scores(1), scores(2), 0.2)
    assert int(grown_content.sum()) == 18
    assert int(style.sum()) == 4 and int((style * (1 - grown_content)).sum()) == 2


def test_a_block_of_contents_own_stays_open_and_style_chooses_freely_there() -> None:
    content, style = grow_masks(ALL, NONE, scores(1), scores(2), 0.1)
    assert torch.equal(content, ALL)
    assert set(style.nonzero().flatten().tolist()) == set(scores(2).argsort(descending=True)[:2].tolist())
    assert int(grow_masks(NONE, ALL, scores(1), scores(2), 0.001)[0].sum()) == 1  # never none at all


def test_scores_are_the_mean_of_weight_times_its_answer() -> None:
    """Against the dense derivative of ΔW along a step of both factors, in float64."""
    lora = grown()["style"]
    name = max(lora.up, key=lambda layer: lora.up[layer].numel())
    generator = torch.Generator().manual_seed(3)
    for table in (lora.up, lora.down):
        table[name].grad = torch.randn(table[name].shape, generator=generator)
    up, down = lora.up[name], lora.down[name]
    assert up.grad is not None and down.grad is not None
    up_gradient, down_gradient = up.grad.double(), down.grad.double()

    def change(step: float) -> torch.Tensor:
        return (up.double() + step * up_gradient) @ (down.double() + step * down_gradient)

    answer = (change(0.5) - change(-0.5)) / 1.0  # central differences are exact for a quadratic
    expected = ((change(0.0) - 0.02 * answer) * answer).abs().mean(dim=1)
    assert relative(column_scores(lora, name, 0.02), expected) < 1e-5


def test_scores_before_training_are_not_all_zero() -> None:
    lora = grown()["style"]
    name = LAYERS[0]
    lora.up[name] = torch.zeros_like(lora.up[name])
    lora.up[name].grad, lora.down[name].grad = torch.randn_like(lora.up[name]), torch.zeros_like(lora.down[name])
    assert bool((column_scores(lora, name, 1e-4) > 0).all())


def test_own_blocks_start_open_and_all_others_closed() -> None:
    lora = grown()["style"]
    roles = {name: ("style" if place % 2 else "content") for place, name in enumerate(lora.up)}
    separate_columns(lora, "style", roles, everywhere=False)  # type: ignore[arg-type]
    assert {name: float(mask.mean()) for name, mask in lora.masks.items()} == {
        name: float(role == "style") for name, role in roles.items()
    }
    assert all(bool((scale == 1).all()) for scale in lora.columns.values())
    separate_columns(lora, "style", roles, everywhere=True)  # type: ignore[arg-type]
    assert sum(float(mask.sum()) for mask in lora.masks.values()) == 0


def test_overlap_is_the_mean_product_and_only_shared_open_columns_count() -> None:
    loras = grown(columns=True)
    total, count = 0.0, 0
    for name, scale in loras["content"].columns.items():
        other = loras["style"]
        both = scale * loras["content"].masks[name] * other.columns[name] * other.masks[name]
        total, count = total + float(both.abs().sum()), count + len(both)
    assert float(column_overlap(loras["content"], loras["style"])) == pytest.approx(total / count, rel=1e-5)


def test_scales_are_brought_back_into_their_range() -> None:
    lora = grown(columns=True)["content"]
    lora.columns[LAYERS[0]] = torch.linspace(-1, 2, len(lora.columns[LAYERS[0]]))
    clamp_columns(lora)
    assert float(lora.columns[LAYERS[0]].min()) == 0.0 and float(lora.columns[LAYERS[0]].max()) == 1.0
