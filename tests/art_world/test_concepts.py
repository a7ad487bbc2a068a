"""The art world's concept LoRAs on untrained weights: what they are shown, and that the engine trains them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.art_world.concepts import ConceptConfig, Kind, concept_pictures, load_concept, novel_concepts
from benchmarks.art_world.concepts import train_concept as train
from benchmarks.art_world.model import ArtModel
from benchmarks.art_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.applied import applied, relative_norm
from random_world import random_weights

NOVEL = len(CONTENTS) - 1


@pytest.fixture(scope="module")
def model() -> ArtModel:
    return random_weights(ArtModel())


@pytest.mark.parametrize(("kind", "label", "count"), [("content", NOVEL, 6), ("style", len(STYLES) - 1, 8)])
def test_a_concept_is_seen_beside_known_companions_alone(kind: Kind, label: int, count: int) -> None:
    prompts = concept_pictures(kind, label).prompts
    own = {prompt.content if kind == "content" else prompt.style for prompt in prompts}
    companions = {prompt.style if kind == "content" else prompt.content for prompt in prompts}
    table = STYLES if kind == "content" else CONTENTS
    assert own == {label}
    assert len(companions) == count
    assert all(place is not None and table[place].split == "known" for place in companions)


def test_every_novel_entry_is_a_concept() -> None:
    assert len(novel_concepts("dev")) == len(novel_concepts("test")) == 10
    assert not set(novel_concepts("dev")) & set(novel_concepts("test"))


def test_a_concept_lora_lowers_its_own_loss_and_leaves_the_model(model: ArtModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = ConceptConfig(steps=10, rank=2, batch=2, prior_pictures=8, learning_rate=2e-3)
    lora = train(model, "content", NOVEL, config)
    own = concept_pictures("content", NOVEL, config)
    generator = torch.Generator().manual_seed(3)
    sigma, noise = torch.full((len(own.prompts),), 1.0), torch.randn(own.latents.shape, generator=generator)
    plain = float(model.loss(own.latents, sigma, noise, own.prompts))
    with applied(model, lora):
        assert float(model.loss(own.latents, sigma, noise, own.prompts)) < plain
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert relative_norm(model, lora) > 0


def test_a_missing_file_is_named_with_what_makes_it(
    model: ArtModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.art_world.concepts.LORAS", tmp_path)
    told = r"content_sks16\.safetensors is not there.*python -m benchmarks\.art_world\.concepts"
    with pytest.raises(FileNotFoundError, match=told):
        load_concept(model, "content", NOVEL)
