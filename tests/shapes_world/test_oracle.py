"""The oracle's committed weights read every picture of the world, and refuse what is odd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.shapes_world import oracle as module
from benchmarks.shapes_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.odd import ODD, OTHER_CONTENT, OTHER_STYLE, UNSURE, Draw, worn
from benchmarks.shapes_world.oracle import WEIGHTS, Oracle, load_oracle, save_oracle, train
from benchmarks.shapes_world.render import render

ALL = torch.cartesian_prod(torch.arange(len(CONTENTS)), torch.arange(len(STYLES))).unbind(1)


def draw(seed: int) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def share(answers: torch.Tensor, truth: torch.Tensor) -> float:
    return (answers == truth).float().mean().item()


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle()


def test_weights_are_small_enough_to_commit() -> None:
    assert WEIGHTS.stat().st_size <= 300_000


@pytest.mark.parametrize("faults", [False, True], ids=["renders", "worn"])
def test_both_heads_read_every_pair(oracle: Oracle, faults: bool) -> None:
    random = draw(123456)
    pictures = render(ALL[0], ALL[1], random.generator)
    contents, styles = oracle.judge(worn(pictures, random) if faults else pictures)
    assert share(contents, ALL[0]) > 0.98
    assert share(styles, ALL[1]) > 0.98


@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_are_other(oracle: Oracle, kind: str) -> None:
    odd = ODD[kind](200, draw(654321))
    for answers, truth, other in zip(
        oracle.judge(odd.pictures), (odd.contents, odd.styles), (OTHER_CONTENT, OTHER_STYLE), strict=True
    ):
        near = kind in ("new_shape", "new_style")  # a star of five rays beside one of six
        for rows, least in ((truth == other, 0.7 if near else 0.85), ((truth != other) & (truth != UNSURE), 0.9)):
            if rows.any():
                assert share(answers[rows], truth[rows]) > least


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_maker_keeps_the_form_of_a_picture_and_labels_some_part_as_other(kind: str) -> None:
    odd = ODD[kind](16, draw(1))
    assert odd.pictures.shape == (16, 3, 32, 32)
    assert odd.pictures.abs().amax() <= 1 + 1e-5
    assert (odd.contents == OTHER_CONTENT).any() or (odd.styles == OTHER_STYLE).any()
    assert torch.equal(odd.pictures, ODD[kind](16, draw(1)).pictures)


def test_judging_does_not_depend_on_the_batch(oracle: Oracle) -> None:
    pictures = render(ALL[0][:40], ALL[1][:40], torch.Generator().manual_seed(0))
    whole, parts = oracle.judge(pictures), oracle.judge(pictures, batch=7)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_saving_and_loading_gives_the_same_answers(oracle: Oracle, tmp_path: Path) -> None:
    save_oracle(oracle, tmp_path / "oracle.safetensors")
    again = load_oracle(tmp_path / "oracle.safetensors").state_dict()
    for name, tensor in oracle.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(again[name], tensor)


def test_weights_for_other_names_are_refused(oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "oracle.safetensors"
    save_oracle(oracle, path)
    monkeypatch.setattr(module, "STYLES", STYLES[::-1])
    with pytest.raises(ValueError, match="knows other names"):
        load_oracle(path)


def test_training_is_repeatable() -> None:
    said: list[str] = []
    first, second = (train(2, 0, said.append).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
