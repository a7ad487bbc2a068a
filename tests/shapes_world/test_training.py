"""LoRAs of one picture on the shapes world: every way makes two that read back as files and go together as a pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.shapes_world.model import ShapesDenoiser, ShapesModel
from benchmarks.shapes_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.single_picture import PLACES, WAYS, BLora, Plain, Unzip, Way, sources
from duolora_core import kohya_state_dict, layer_roles, lora_from_tensors, make_pair, match_to_model
from random_world import random_world


@pytest.fixture(scope="module")
def model() -> ShapesModel:
    return random_world()


def shortened(way: Way) -> Way:
    """The same in two steps."""
    if isinstance(way, Unzip):
        learning = replace(way.config.learning, steps=2, warmup=0, batch=1)
        return replace(way, config=replace(way.config, learning=learning, probes=1))
    assert isinstance(way, Plain | BLora)
    return replace(way, config=replace(way.config, steps=2, warmup=0, batch=1))


def test_four_pictures_hold_each_novel_word_of_a_split_once() -> None:
    for split in ("dev", "test"):
        found = sources(split)
        assert len({source.content for source in found}) == len({source.style for source in found}) == 4
        assert all(CONTENTS[source.content].split == STYLES[source.style].split == split for source in found)
        assert torch.equal(found[0].latent, sources(split)[0].latent)
        assert found[0].latent.shape == (12, 16, 16)


@pytest.mark.parametrize("name", list(WAYS))
def test_every_way_makes_a_content_and_a_style_lora(model: ShapesModel, name: str) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    denoiser = ShapesDenoiser(model)
    parts = shortened(WAYS[name])(denoiser, sources("dev")[0])
    content, style = (
        match_to_model(lora_from_tensors(kohya_state_dict(lora), "made"), denoiser.layout)
        for lora in (parts.content, parts.style)
    )
    assert make_pair(content, style, denoiser.layout).names
    assert all(bool(low_rank.up.any()) for lora in (parts.content, parts.style) for low_rank in lora.layers.values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if name == "b_lora":
        roles = layer_roles(denoiser.layout, PLACES)
        assert {roles[layer] for layer in content.layers} == {"content"}
        assert {roles[layer] for layer in style.layers} == {"style"}
