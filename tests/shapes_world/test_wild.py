"""Nameless pictures keep what is named, name nothing else, and show none of the novel concepts."""

from __future__ import annotations

import pytest
import torch

from benchmarks.shapes_world.names import CONTENTS, STYLES, labels
from benchmarks.shapes_world.oracle import Oracle, load_oracle
from benchmarks.shapes_world.wild import nameless

COUNT = 196
KNOWN = torch.arange(COUNT) % len(labels(CONTENTS, "known"))
NONE = torch.full((COUNT,), -1)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_a_named_word_stays_and_the_other_is_no_known_one(oracle: Oracle) -> None:
    contents, styles = oracle.judge(nameless(KNOWN, NONE, seeded()))
    assert (contents == KNOWN).float().mean() > 0.8  # wild colours can hide a shape
    assert (styles == len(STYLES)).float().mean() > 0.9
    contents, styles = oracle.judge(nameless(NONE, KNOWN, seeded()))
    assert (styles == KNOWN).float().mean() > 0.9
    assert (contents == len(CONTENTS)).float().mean() > 0.6  # known shapes that are only turned are among them


def test_nothing_novel_is_given_away(oracle: Oracle) -> None:
    """Random mixtures come near a novel concept as rarely as chance has it."""
    contents, styles = oracle.judge(nameless(NONE, NONE, seeded()))
    for found, table in ((contents, CONTENTS), (styles, STYLES)):
        novel = torch.tensor(labels(table, "dev", "test"))
        assert torch.isin(found, novel).float().mean() < 0.08


def test_pictures_are_of_the_usual_form_and_repeat_with_the_seed() -> None:
    pictures = nameless(NONE, NONE, seeded())
    assert pictures.shape == (COUNT, 3, 32, 32)
    assert float(pictures.abs().max()) <= 1
    assert torch.equal(pictures, nameless(NONE, NONE, seeded()))
    assert not torch.equal(pictures[0], pictures[1])
