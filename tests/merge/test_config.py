"""Settings: what is refused, and that the presets are the published numbers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from benchmarks.ldm_unet import SDXL
from duolora_core import PRESETS, MergeConfig, layer_roles
from duolora_core.errors import SettingsError
from tiny import layout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("weight_decay", 1.5),
        ("clip", 0.0),
        ("content_threshold", 1.1),
        ("content_threshold", -0.1),
        ("style_threshold", 0.2),  # above content_threshold, 0.1
        ("style_threshold", -0.1),
        ("micro_batch", 0),
        ("pool", -1),
    ],
)
def test_a_setting_outside_its_bounds_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        with_setting(name, value)


def with_setting(name: str, value: float) -> MergeConfig:
    setting: dict[str, Any] = {name: value}
    return MergeConfig(**setting)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 1),
        ("learning_rate", 0.0),
        ("clip", float("inf")),
        ("style_threshold", 0.1),
        ("micro_batch", 1),
        ("pool", 0),
    ],
)
def test_the_bounds_themselves_are_allowed(name: str, value: float) -> None:
    assert getattr(with_setting(name, value), name) == value


def test_an_unknown_kind_of_timesteps_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="timesteps is sorted, but must be one of uniform, stratified"):
        MergeConfig(timesteps="sorted")  # type: ignore[arg-type]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        MergeConfig().steps = 3  # type: ignore[misc]


PUBLISHED = {
    "paper": {  # arXiv 2504.13206, section 4 and Algorithm 2
        "initialisation": "random",
        "content_threshold": 0.1,
        "style_threshold": 0.0,
        "layer_prior_weight": 0.1,
        "cycle_weight": 0.01,
        "reconstruction_weight": 0.01,
        "weight_decay": 0.0,
        "prior_form": "diagonal",
        "basis": "svd",
    },
    "authors_code": {  # the training script's own arguments; its boolean initialisation is all ones
        "initialisation": "ones",
        "layer_prior_weight": 0.01,
        "cycle_weight": 0.1,
        "reconstruction_weight": 1.0,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "prior_form": "vector",
        "basis": "factors",
        "layer_prior": "authors_code",
        "cycle_route": "authors",
    },
}


@pytest.mark.parametrize("preset", list(PUBLISHED))
def test_a_preset_has_the_published_numbers(preset: str) -> None:
    assert {name: getattr(PRESETS[preset], name) for name in PUBLISHED[preset]} == PUBLISHED[preset]
    assert (PRESETS[preset].steps, PRESETS[preset].learning_rate) == (100, 0.01)


def test_the_default_prior_prefers_the_dominant_side() -> None:
    """Which takes a hinge heavier than the sparsity, see the tests of the losses."""
    assert PRESETS["default"].rank_weight > PRESETS["default"].sparsity
    assert PRESETS["default"] == MergeConfig()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_presets_layer_prior_gives_both_roles_on_sdxl(preset: str) -> None:
    roles = layer_roles(layout(SDXL), PRESETS[preset].layer_prior)
    assert {"content", "style"} <= set(roles.values())
