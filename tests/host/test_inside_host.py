"""Our tables against the host's own classes, and our node schemas against what the host makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, UNet, layer_shapes
from duolora_core import layout_from_shapes
from host.hosts import Host

HERE = Path(__file__).resolve().parent
CONFIGS = {"SDXL": SDXL, "SSD_1B": SSD_1B, "SEGMIND_VEGA": SEGMIND_VEGA}


def ask(host: Host, what: str) -> dict[str, Any]:
    return host.ask(HERE / "inside_host.py", "--pack", HERE.parents[1], "--what", what)


def test_layer_tables_are_the_hosts(host: Host) -> None:
    """Names and shapes of SDXL, SSD-1B and Segmind-Vega are those of ComfyUI's UNet, diffusers names included."""
    answer = ask(host, "layouts")
    for name, config in CONFIGS.items():
        with torch.device("meta"):
            shapes = layer_shapes(UNet(config))
        assert shapes == {layer: tuple(shape) for layer, shape in answer[name]["shapes"].items()}
        layout = layout_from_shapes(shapes)
        for diffusers, layer in answer[name]["diffusers"].items():
            assert layout.aliases[diffusers] == layer


@pytest.fixture(scope="module")
def schemas(host: Host) -> dict[str, Any]:
    return ask(host, "schemas")


def test_every_input_reaches_execute(schemas: dict[str, Any]) -> None:
    """The ids of a schema's inputs are execute's parameters."""
    for node, found in schemas.items():
        missing = set(found["inputs"]) ^ set(found["parameters"])
        unknown = missing - set(found["inputs"]) if found["takes_more"] else missing
        assert not unknown, (node, unknown)


def test_every_input_is_explained_and_bounded(schemas: dict[str, Any]) -> None:
    """Ids are prefixed; every input and output has a tooltip, every number bounds and a default."""
    assert len(schemas) == 17
    for node, found in schemas.items():
        assert node.startswith("DuoLoRA")
        assert found["described"], node
        assert found["without_tooltip"] == [], node
        assert found["unbounded"] == [], node
