"""Merges in the shared core: lossless for linear rules, TIES and DARE as written down for single entries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from duolora_core import LowRank, make_pair
from duolora_core.baselines.core_space import dare, merge_cores, shared_core, ties
from duolora_core.baselines.training_free import stack, with_layers
from duolora_core.errors import SettingsError
from duolora_core.lora.folded import FoldedLora
from factors import random_factors, shapes_of
from tiny import TEXT_SHAPES, VARIED, layout, pick
from worlds import World, dense_low_rank, placed_lora, relative, world

TIGHT = 1e-5  # the factors and their SVD are float32


@pytest.fixture(scope="module")
def varied() -> World:
    names = pick(VARIED)
    return world([n for i, n in enumerate(names) if i % 5], [n for i, n in enumerate(names) if i % 7], ranks=(4, 3))


def assert_same(folded: FoldedLora, expected: FoldedLora, tolerance: float = TIGHT) -> None:
    assert folded.layers.keys() == expected.layers.keys()
    assert folded.shapes == expected.shapes
    for name, low_rank in folded.layers.items():
        assert relative(dense_low_rank(low_rank), dense_low_rank(expected.layers[name])) < tolerance, name


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 0.5), (2.0, -0.3)])
def test_a_linear_rule_in_the_core_is_lossless(varied: World, a: float, b: float) -> None:
    merged = merge_cores(varied.pair, lambda content, style: a * content + b * style)
    expected = stack(varied.pair, content_strength=a, style_strength=b)
    assert_same(merged, expected)
    for name, low_rank in merged.layers.items():
        assert low_rank.rank <= sum(varied.pair.ranks(name))


RANDOM = torch.Generator().manual_seed(0)
UP, DOWN = torch.randn(12, 4, generator=RANDOM).double(), torch.randn(4, 20, generator=RANDOM).double()
OTHER_UP, OTHER_DOWN = torch.randn(12, 3, generator=RANDOM).double(), torch.randn(3, 20, generator=RANDOM).double()
PAIRS = {
    "independent": (LowRank(UP, DOWN), LowRank(OTHER_UP, OTHER_DOWN)),
    "the same twice": (LowRank(UP, DOWN), LowRank(UP, DOWN)),
    "shared inputs": (LowRank(UP, DOWN), LowRank(OTHER_UP, DOWN[:3])),
    "more ranks than outputs": (LowRank(UP[:5], DOWN), LowRank(OTHER_UP[:5], OTHER_DOWN)),
    "content only": (LowRank(UP, DOWN), None),
    "style only": (None, LowRank(OTHER_UP, OTHER_DOWN)),
    "untrained style": (LowRank(UP, DOWN), LowRank(torch.zeros(12, 3).double(), OTHER_DOWN)),
}


@pytest.mark.parametrize(("content", "style"), list(PAIRS.values()), ids=list(PAIRS))
def test_both_loras_come_back_from_their_cores(content: LowRank | None, style: LowRank | None) -> None:
    core = shared_core(content, style)
    for basis in (core.up, core.down):
        assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]).double(), atol=1e-12)
    for matrix, low_rank in ((core.content, content), (core.style, style)):
        expected = torch.zeros(core.up.shape[0], 20).double() if low_rank is None else low_rank.delta()
        assert torch.allclose(core.expanded(matrix).delta(), expected, atol=1e-12)


def test_a_core_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        shared_core(None, None)


def ties_entry(values: tuple[float, float]) -> float:
    """TIES for one entry of two trimmed cores: elect the sign of the sum, average what is not zero and has it."""
    total = sum(values)
    agreeing = [v for v in values if v * total > 0]
    return sum(agreeing) / len(agreeing) if agreeing else 0.0


def trimmed(core: Tensor, density: float) -> Tensor:
    """Entries below the quantile are zero, by sorting."""
    count = round(density * core.numel() + 0.5 - 1e-6)
    limit = core.abs().flatten().sort(descending=True).values[count - 1]
    return torch.where(core.abs() >= limit, core, torch.zeros_like(core))


def by_core(built: World, name: str, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    core = shared_core(built.pair.content.get(name), built.pair.style.get(name))
    return core.up.double() @ rule(core.content.double(), core.style.double()) @ core.down.double().T


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_is_its_definition_entry_by_entry(density: float) -> None:
    built = world(pick(r"^middle_block\.[01]\..*(to_q|in_layers\.2|emb_layers\.1)$"), ranks=(4, 3))

    def rule(content: Tensor, style: Tensor) -> Tensor:
        pairs = zip(trimmed(content, density).flatten(), trimmed(style, density).flatten(), strict=True)
        return torch.tensor([ties_entry((float(c), float(s))) for c, s in pairs]).double().view_as(content)

    folded = ties(built.pair, density=density)
    for name, low_rank in folded.layers.items():
        assert relative(dense_low_rank(low_rank), by_core(built, name, rule)) < TIGHT, name


def test_ties_of_a_lora_with_itself_is_that_lora(varied: World) -> None:
    """No conflict anywhere, so the merge at density 1 is the average (and the average of equals is either)."""
    content = varied.pair.content_lora
    twin = make_pair(content, content, layout())
    assert_same(ties(twin, density=1.0), stack(twin, style_strength=0.0))


def test_ties_lets_the_larger_of_two_opposites_win(varied: World) -> None:
    built = make_pair(
        placed_lora(varied.content), placed_lora({n: f.scaled(-0.5) for n, f in varied.content.items()}), layout()
    )
    assert_same(ties(built, density=1.0), stack(built, style_strength=0.0))


def test_a_layer_of_one_lora_is_kept_at_density_one_and_trimmed_below(varied: World) -> None:
    """In the SVD basis its core is diagonal, so of 16 entries the 4 that are not zero stay, and of 2 the larger."""
    alone = [name for name in varied.pair.names if name not in varied.pair.style and varied.pair.ranks(name) == (4, 0)]
    full, half, thin = (ties(varied.pair, density=density) for density in (1.0, 4 / 16, 2 / 16))
    assert alone
    for name in alone:
        for folded, rank in ((full, 4), (half, 4), (thin, 2)):
            expected = dense_low_rank(varied.pair.content[name].truncated(rank)[0])
            assert relative(dense_low_rank(folded.layers[name]), expected) < TIGHT


def test_dare_without_drops_is_the_plain_sum(varied: World) -> None:
    assert_same(dare(varied.pair, drop=0.0), stack(varied.pair))


def test_dare_drops_a_share_of_each_core_and_scales_the_rest() -> None:
    """On factors as in a file, whose cores are full; an untrained style leaves the content's core alone to be seen."""
    name = pick(r"^middle_block\.1\.transformer_blocks\.0\.attn1\.to_q$")[0]
    built = world([name], ranks=(16, 16), basis="factors")
    pair = with_layers(built.pair, built.pair.content, {name: built.pair.style[name].scaled(0.0)})
    whole = shared_core(pair.content[name], pair.style[name])
    merged = dare(pair, drop=0.75, generator=torch.Generator().manual_seed(3)).layers[name]
    assert torch.equal(merged.up, whole.up)
    found = merged.down @ whole.down
    full = whole.content.abs() > 1e-4 * float(whole.content.abs().max())
    kept = full & (found.abs() > 1e-5 * float(found.abs().max()))
    assert int(full.sum()) >= 250  # of 16 x 16
    assert float(kept.sum() / full.sum()) == pytest.approx(0.25, abs=0.09)  # three standard deviations
    assert torch.allclose(found[kept], 4 * whole.content[kept], rtol=1e-2)


def test_dare_is_the_sum_on_average() -> None:
    """The mean of n draws is off by about ‖M‖ · √(drop / (1 - drop) / n) in the Frobenius norm."""
    built = world(pick(r"^middle_block\.1\.transformer_blocks\.0\.attn1\.to_q$"), ranks=(4, 3))
    name, draws, generator = built.pair.names[0], 400, torch.Generator().manual_seed(1)
    mean = (
        sum(
            (dense_low_rank(dare(built.pair, drop=0.5, generator=generator).layers[name]) for _ in range(draws)),
            torch.zeros(()),
        )
        / draws
    )
    content, style = (dense_low_rank(side[name]) for side in (built.pair.content, built.pair.style))
    spread = float((content.square().sum() + style.square().sum()).sqrt()) * (1 / draws) ** 0.5
    assert 0.5 * spread < float((mean - content - style).norm()) < 1.5 * spread


def test_dare_follows_its_generator(varied: World) -> None:
    state = torch.get_rng_state()
    one, two, three = (dare(varied.pair, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    name = varied.pair.names[0]
    assert torch.equal(one.layers[name].down, two.layers[name].down)
    assert not torch.equal(one.layers[name].down, three.layers[name].down)
    assert torch.equal(dare(varied.pair).layers[name].down, dare(varied.pair).layers[name].down)
    assert torch.equal(torch.get_rng_state(), state)


def test_text_and_offsets_are_summed() -> None:
    norm, names = "middle_block.1.norm", pick(r"^output_blocks\.0\.1\..*attn1\.to_q$")
    factors = [
        {**random_factors(shapes_of(names), seed=seed), **random_factors(TEXT_SHAPES, seed=seed + 10)}
        for seed in (1, 2)
    ]
    concepts = [placed_lora(f, offsets={f"{norm}.diff": torch.ones(64)}) for f in factors]
    pair = make_pair(concepts[0], concepts[1], layout())
    expected = stack(pair)
    for folded in (ties(pair), dare(pair)):
        assert folded.shapes == expected.shapes
        assert torch.allclose(folded.offsets[norm, "weight"], torch.full((64,), 2.0))
        for name, low_rank in folded.text.items():
            assert relative(dense_low_rank(low_rank), dense_low_rank(expected.text[name])) < TIGHT


@pytest.mark.parametrize("density", [0.0, 1.1])
def test_a_density_without_meaning_is_refused(varied: World, density: float) -> None:
    with pytest.raises(SettingsError, match="density"):
        ties(varied.pair, density=density)


@pytest.mark.parametrize("drop", [-0.1, 1.0])
def test_a_drop_without_meaning_is_refused(varied: World, drop: float) -> None:
    with pytest.raises(SettingsError, match="drop"):
        dare(varied.pair, drop=drop)
