"""Gates: how they start (Algorithm 2), where they lie, and what their statistics say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duolora_core import Gates, LoraPair, LowRank, initial_gates, make_pair, open_gates
from duolora_core.merge.gates import DEAD_GATE, Initialisation
from duolora_core.merge.roles import Role
from duolora_core.merge.statistics import active_ranks, block_statistics
from factors import shapes_of
from tiny import layout, pick
from worlds import bare_lora, random_gates, world

LAYERS = pick(r"^(input_blocks\.4\.1|middle_block\.1|output_blocks\.1\.1)\..*attn1\.to_[qk]$")


def pair_of_ranks(content: int, style: int) -> LoraPair:
    def side(rank: int) -> dict[str, LowRank]:
        shapes = shapes_of(LAYERS)
        return {name: LowRank(torch.zeros(out, rank), torch.zeros(rank, into)) for name, (out, into) in shapes.items()}

    return make_pair(bare_lora(side(content)), bare_lora(side(style)), layout(), "factors")


def everywhere(role: Role) -> dict[str, Role]:
    return dict.fromkeys(layout().layers, role)


def dominant_and_other(gates: Gates, name: str, role: Role) -> tuple[Tensor, Tensor]:
    content, style = gates.content(name), gates.style(name)
    return (content, style) if role == "content" else (style, content)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("thresholds", [(0.1, 0.0), (0.75, 0.5), (0.3, 0.3), (1.0, 0.0)])
@pytest.mark.parametrize("initialisation", ["random", "strongest"])
def test_the_dominant_side_opens_a_superset_of_the_other(
    role: Role, thresholds: tuple[float, float], initialisation: Initialisation
) -> None:
    gates = initial_gates(pair_of_ranks(64, 64), everywhere(role), initialisation, *thresholds, seeded(3))
    sides = [dominant_and_other(gates, name, role) for name in gates.slots]
    for dominant, other in sides:
        assert set(dominant.tolist()) <= {0.0, 1.0} and set(other.tolist()) <= {0.0, 1.0}
        assert bool((dominant >= other).all())
    more = sum(float(dominant.sum() - other.sum()) for dominant, other in sides)
    assert (more > 0) == (thresholds[0] > thresholds[1])


@pytest.mark.parametrize("role", ["content", "style"])
def test_a_threshold_of_zero_closes_exactly_the_minimum(role: Role) -> None:
    """v is scaled to [0, 1], so v > 0 fails for the one smallest component."""
    gates = initial_gates(pair_of_ranks(64, 64), everywhere(role), "random", 0.1, 0.0, seeded(0))
    assert [int((dominant_and_other(gates, name, role)[0] == 0).sum()) for name in gates.slots] == [1] * len(LAYERS)


def test_random_ones_are_where_the_scaled_normal_exceeds_the_threshold() -> None:
    """Algorithm 2 for one layer, written out; several layers draw independently."""
    gates = initial_gates(pair_of_ranks(8, 8), everywhere("content"), "random", 0.4, 0.2, seeded(11))
    generator = seeded(11)
    for name in gates.slots:
        v = torch.randn(8, generator=generator).double()
        v = (v - v.min()) / (v.max() - v.min())
        assert torch.equal(gates.content(name), (v > 0.2).float())
        assert torch.equal(gates.style(name), (v > 0.4).float())


@pytest.mark.parametrize("initialisation", ["ones", "random", "strongest"])
def test_neutral_layers_start_as_the_plain_sum(initialisation: Initialisation) -> None:
    gates = initial_gates(pair_of_ranks(6, 4), everywhere("neutral"), initialisation, 0.9, 0.5, seeded(0))
    assert torch.equal(gates.values, torch.ones(10 * len(LAYERS)))


@pytest.mark.parametrize("role", ["content", "style"])
def test_ones_ignore_the_roles(role: Role) -> None:
    gates = initial_gates(pair_of_ranks(6, 4), everywhere(role), "ones", 0.9, 0.5, seeded(0))
    assert torch.equal(gates.values, open_gates(pair_of_ranks(6, 4)).values)


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 10), (0.1, 9), (0.25, 8), (0.99, 1), (1.0, 0)])
def test_strongest_opens_the_leading_share(threshold: float, kept: int) -> None:
    gates = initial_gates(pair_of_ranks(10, 10), everywhere("content"), "strongest", threshold, 0.0)
    for name in gates.slots:
        assert gates.style(name).tolist() == [1.0] * kept + [0.0] * (10 - kept)
        assert gates.content(name).tolist() == [1.0] * 10


@pytest.mark.parametrize("initialisation", ["random", "strongest"])
@pytest.mark.parametrize(("content", "style"), [(64, 16), (16, 64), (1, 8), (8, 1)])
def test_ranks_may_differ(initialisation: Initialisation, content: int, style: int) -> None:
    """Each side is thresholded over its own components; a single component has no spread and stays open."""
    gates = initial_gates(pair_of_ranks(content, style), everywhere("content"), initialisation, 0.5, 0.0, seeded(1))
    assert gates.values.numel() == (content + style) * len(LAYERS)
    for name in gates.slots:
        assert gates.content(name).shape == (content,) and gates.style(name).shape == (style,)
        assert 0 < gates.style(name).sum() <= max(1, style - 1)
        assert gates.content(name).sum() >= max(1, content - 1)


def test_random_follows_its_generator() -> None:
    pair, roles = pair_of_ranks(64, 64), everywhere("content")
    one, again, other = (initial_gates(pair, roles, "random", 0.5, 0.3, seeded(s)).values for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_slots_tile_the_vector_in_forward_order() -> None:
    built = world(LAYERS[:3], LAYERS[1:], ranks=(3, 2))
    gates = open_gates(built.pair)
    gates.values = torch.arange(float(gates.values.numel()))
    pieces = [piece for name in gates.slots for piece in (gates.content(name), gates.style(name))]
    assert torch.equal(torch.cat(pieces), gates.values)
    assert tuple(gates.slots) == built.pair.names
    assert {name: (len(gates.content(name)), len(gates.style(name))) for name in gates.slots} == {
        name: (3 * (name in LAYERS[:3]), 2 * (name in LAYERS[1:])) for name in built.pair.names
    }
    owners: list[bool] = []
    for name in gates.slots:
        content_rank, style_rank = built.pair.ranks(name)
        owners += [True] * content_rank + [False] * style_rank
    assert gates.is_content().tolist() == owners


def test_a_copy_is_independent() -> None:
    gates = random_gates(pair_of_ranks(2, 2))
    copy = gates.copy()
    gates.values += 1
    assert torch.allclose(copy.values + 1, gates.values)


def test_statistics_count_by_block_what_a_loop_counts() -> None:
    pair = world(LAYERS, LAYERS[2:], ranks=(4, 3)).pair
    gates = random_gates(pair)
    gates.values[::3] = 0.0
    gates.values[1] = DEAD_GATE  # on the edge: alive
    gates.values[2] = -DEAD_GATE / 2
    roles = {name: layer.block.part for name, layer in layout().layers.items()}
    rows = {row.name: row for row in block_statistics(gates, pair, roles)}  # type: ignore[arg-type]
    blocks = list(dict.fromkeys(layout().layers[name].block.diffusers for name in pair.names))
    assert list(rows) == blocks
    for block, row in rows.items():
        names = [name for name in pair.names if layout().layers[name].block.diffusers == block]
        content = [abs(v) for name in names for v in gates.content(name).tolist()]
        style = [abs(v) for name in names for v in gates.style(name).tolist()]
        assert row.role == roles[names[0]]
        assert (row.content_rank, row.style_rank) == (len(content), len(style))
        edge = float(torch.tensor(DEAD_GATE))
        assert (row.content_active, row.style_active) == tuple(sum(v >= edge for v in s) for s in (content, style))
        assert row.content_mean == pytest.approx(sum(content) / len(content))
        assert row.style_mean == pytest.approx(sum(style) / len(style) if style else 0.0)
    assert sum(row.content_active for row in rows.values()) == sum(c for c, _ in active_ranks(gates).values())
    assert sum(row.style_active for row in rows.values()) == sum(s for _, s in active_ranks(gates).values())
