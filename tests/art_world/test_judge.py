"""The art world's judge: its committed weights read every picture of the world."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.art_world.calibration import accuracy, known_prompts, truths
from benchmarks.art_world.judge import Judge, check, load_judge, renders, save_judge
from benchmarks.art_world.names import CONTENTS, STYLES


def test_the_judge_reads_renders_that_it_never_saw() -> None:
    generator = torch.Generator().manual_seed(77)
    contents = torch.arange(len(CONTENTS)).repeat(2)
    styles = torch.randint(len(STYLES), (len(contents),), generator=generator)
    found = load_judge().judge(renders(contents, styles, generator))
    assert float((found[0] == contents).float().mean()) >= 0.97
    assert float((found[1] == styles).float().mean()) >= 0.97


def test_the_judge_finds_the_real_drawings_right_and_at_no_distance() -> None:
    prompts = known_prompts(180)
    found = accuracy(truths(prompts), prompts, load_judge())
    assert found.both >= 0.97
    assert found.distance == 0
    assert found.other > 0.3


def test_a_judge_of_other_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "judge.safetensors"
    with pytest.raises(FileNotFoundError, match=r"art_world\.judge --train"):
        load_judge(path)
    judge = Judge().eval()
    save_judge(judge, path)
    assert torch.allclose(load_judge(path).content.weight, judge.content.weight, atol=1e-3)
    lines: list[str] = []
    check(judge, lines.append, each=1)
    assert len(lines) == 12
    monkeypatch.setattr("benchmarks.art_world.judge.STYLES", STYLES[:-1])
    with pytest.raises(ValueError, match="other names"):
        load_judge(path)
