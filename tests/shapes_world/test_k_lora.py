"""K-LoRA's choice against its definition on dense float64 matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.shapes_world.k_lora import top_k_choice, top_k_switch
from duolora_core.baselines.training_free import with_layers
from duolora_core.errors import SettingsError
from tiny import ATTENTION, pick
from worlds import World, dense_low_rank, dense_sides, relative, varied_world, world

TIGHT = 1e-5  # the factors are float32


@pytest.fixture(scope="module")
def varied() -> World:
    return varied_world()


def k_lora(built: World, progress: float, alpha: float = 1.5, beta: float = 0.5) -> dict[str, Tensor]:
    """Equations 1 to 10 of the paper, layer by layer on dense matrices; a layer of one LoRA keeps it."""
    content, style = dense_sides(built)
    both = [name for name in built.pair.names if name in content and name in style]
    gamma = sum(float(content[n].abs().sum() / style[n].abs().sum()) for n in both) / len(both)
    chosen = {**style, **content}
    for name in both:
        k = built.pair.content[name].rank * built.pair.style[name].rank
        s_c, s_s = (float(side[name].abs().flatten().sort().values[-k:].sum()) for side in (content, style))
        if s_c < s_s * gamma * (alpha * progress + beta):
            chosen[name] = style[name]
    return chosen


@pytest.mark.parametrize("progress", [0.0, 0.2, 1 / 3, 0.5, 1.0])
def test_top_k_picks_what_the_dense_definition_picks(varied: World, progress: float) -> None:
    folded, expected = top_k_choice(varied.pair, progress=progress), k_lora(varied, progress)
    assert folded.layers.keys() == expected.keys()
    for name, low_rank in folded.layers.items():
        assert relative(dense_low_rank(low_rank), expected[name]) < TIGHT, name


def test_top_k_goes_from_content_to_style(varied: World) -> None:
    shared = set(varied.pair.content) & set(varied.pair.style)
    switches = top_k_switch(varied.pair)
    assert set(switches) == set(varied.pair.names)
    moments = [value for name in shared if (value := switches[name]) is not None]
    assert len({round(value, 4) for value in moments}) > len(shared) / 2  # layers switch one after the other
    for name, switch in switches.items():
        if name not in varied.pair.style:
            assert switch is None
        elif name not in varied.pair.content:
            assert switch is not None and switch < 0


@pytest.mark.parametrize(("alpha", "beta"), [(1.5, 0.5), (0.2, 0.9)])
def test_a_layer_switches_where_the_table_says(alpha: float, beta: float) -> None:
    built = world(pick(ATTENTION)[:6], ranks=(4, 3))
    content, switches = dense_sides(built)[0], top_k_switch(built.pair, alpha=alpha, beta=beta)
    assert sum(switch is not None and 0 < switch < 1 for switch in switches.values()) > 1
    for name, switch in switches.items():
        for progress in (0.0, 1.0) if switch is None else (switch - 1e-4, switch + 1e-4):
            is_content = torch.equal(k_lora(built, progress, alpha, beta)[name], content[name])
            assert is_content == (switch is None or progress < switch), name


def test_top_k_is_blind_to_the_scale_of_a_file(varied: World) -> None:
    louder = {name: low_rank.scaled(7.0) for name, low_rank in varied.pair.style.items()}
    one, two = top_k_switch(varied.pair), top_k_switch(with_layers(varied.pair, varied.pair.content, louder))
    for name, switch in one.items():
        assert two[name] == (None if switch is None else pytest.approx(switch, abs=1e-4))


@pytest.mark.parametrize("settings", [{"progress": 1.1}, {"progress": -0.1}, {"alpha": 0.0}, {"beta": 0.0}])
def test_top_k_refuses_what_has_no_meaning(varied: World, settings: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        top_k_choice(varied.pair, **{"progress": 0.5, **settings})
