"""What the options node makes of a merge, as its saved masks tell it: presets, and settings that old graphs lack."""

from __future__ import annotations

from typing import Any

import pytest

from duolora_core import PRESETS
from duolora_core.merge.config import FAST
from duolora_core.merge.masks_file import read_masks
from host.comfy_host import ComfyServer
from host.merge_graphs import OPTIONS, add_merge, add_save, models_only
from host.narrow import CONTENT, STYLE

DIALS: dict[str, Any] = {"layer_prior": "none", "layer_prior_weight": 0.5, "cycle_weight": 0.02}
"""Of the merge node, away from their defaults."""

EXACT: dict[str, Any] = {"pool": 0, "timesteps": "uniform"}


@pytest.mark.parametrize(
    ("case", "steps", "options", "expected"),
    [
        ("before_there_was_a_pool", 2, {}, DIALS | EXACT | {"steps": 2}),
        ("fast", 100, {"preset": "fast", "sparsity": 0.2}, {**DIALS, **FAST, "sparsity": 0.2}),
        ("fast_and_fewer", 3, {"preset": "fast", "pool": 5}, {**DIALS, **FAST, "steps": 3}),
        ("pooled", 3, {"pool": 2, "timesteps": "stratified"}, DIALS | {"pool": 2, "timesteps": "stratified"}),
        ("paper", 2, {"preset": "paper", "pool": 5}, EXACT | {"steps": 2, "layer_prior": PRESETS["paper"].layer_prior}),
    ],
)
def test_settings_that_reach_the_training(
    server: ComfyServer, narrow: str, case: str, steps: int, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A published preset replaces the dials of both nodes; `fast` keeps them and has its own steps at most."""
    assert not EXACT.keys() & OPTIONS.keys()
    graph = add_merge(models_only(narrow), CONTENT, STYLE, steps=steps, options=options, **DIALS)
    server.run(add_save(graph, ["merge", 0], f"options/{case}", what="masks only"), 600)
    (path,) = (server.loras / "options").glob(f"{case}_0*")
    config = read_masks(path).recipe["config"]
    assert {name: config[name] for name in expected} == expected
