"""Each world in turn, with a model of random weights."""

from __future__ import annotations

import pytest

from benchmarks.word_model import WordModel
from random_world import random_weights
from word_world.both import WORLDS, World


@pytest.fixture(scope="package", params=WORLDS, ids=lambda world: world.name)
def world(request: pytest.FixtureRequest) -> World:
    return request.param


@pytest.fixture(scope="package")
def model(world: World) -> WordModel:
    return random_weights(world.make())
