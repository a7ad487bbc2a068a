"""How the quality benchmark counts: cases, verdicts, intervals, and work in several processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.shapes_world.cases import Case, case_of, cases
from benchmarks.shapes_world.judging import CHUNK, Verdict, bootstrap, judge, paint, summarise
from benchmarks.shapes_world.model import Prompt
from benchmarks.shapes_world.names import CONTENTS, STYLES, labels
from benchmarks.shapes_world.oracle import load_oracle
from benchmarks.shapes_world.quality_report import sdxl_parameters
from benchmarks.shapes_world.render import render
from benchmarks.workers import side_by_side


@pytest.mark.parametrize("split", ["dev", "test"])
def test_cases_are_all_pairs_of_a_split_and_every_four_hold_each_word_once(split: str) -> None:
    chosen = cases(split)  # type: ignore[arg-type]
    assert {(case.content, case.style) for case in chosen} == {
        (content, style)
        for content in labels(CONTENTS, split)  # type: ignore[arg-type]
        for style in labels(STYLES, split)  # type: ignore[arg-type]
    }
    for start in range(0, 16, 4):
        four = chosen[start : start + 4]
        assert len({case.content for case in four}) == len({case.style for case in four}) == 4


def test_a_case_is_found_by_its_name() -> None:
    assert all(case_of(case.name) == case for case in cases("dev"))
    with pytest.raises(ValueError, match="is not in list"):
        case_of("sks1+zwx99")


def test_true_pictures_are_judged_right_and_foreign_ones_are_a_leak() -> None:
    """Renders of the asked content and style are right; the same renders are wrong for another prompt, and leak."""
    asked = Case(labels(CONTENTS, "test")[0], labels(STYLES, "test")[1])
    many = torch.full((16,), 1)
    pictures = render(many * asked.content, many * asked.style, torch.Generator().manual_seed(0))
    right = judge(pictures, [asked.prompt] * 16, load_oracle())
    assert (right.content, right.style, right.both, right.harmonic, right.leak) == (1, 1, 1, 1, 0)
    other = Prompt(labels(CONTENTS, "test")[2], asked.style)
    wrong = judge(pictures, [other] * 16, load_oracle(), foreign=[asked.content])
    assert (wrong.content, wrong.style, wrong.harmonic, wrong.leak) == (0, 1, 0, 1)
    assert judge(pictures, [Prompt(None, asked.style)] * 16, load_oracle()).content == 1


def test_content_in_half_and_style_in_the_other_half_is_never_both() -> None:
    halves = Verdict(torch.tensor([[True, False, False]] * 4 + [[False, True, False]] * 4))
    assert (halves.content, halves.style, halves.harmonic, halves.both) == (0.5, 0.5, 0.5, 0.0)


def test_a_summary_is_the_mean_over_cases_and_its_interval_shrinks_with_pictures() -> None:
    generator = torch.Generator().manual_seed(0)

    def verdicts(pictures: int) -> list[Verdict]:
        return [Verdict(torch.rand(pictures, 3, generator=generator) < 0.6) for _ in range(8)]

    few, many = summarise(few_ := verdicts(10)), summarise(verdicts(400))
    assert few.harmonic == pytest.approx(sum(v.harmonic for v in few_) / 8)
    assert few.interval[0] < few.harmonic < few.interval[1]
    assert many.interval[1] - many.interval[0] < 0.5 * (few.interval[1] - few.interval[0])
    sure = summarise([Verdict(torch.ones(5, 3, dtype=torch.bool))] * 3)
    assert sure.interval == (1.0, 1.0)


def test_two_methods_are_resampled_alike() -> None:
    """Equal seeds draw equal cases and pictures, so the better of two nested methods wins every draw."""
    seen = torch.rand(6, 20, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    worse, better = [Verdict(row) for row in seen], [Verdict(row | True) for row in seen]
    assert bool((bootstrap(better)[0] >= bootstrap(worse)[0]).all())
    assert torch.equal(bootstrap(worse)[0], bootstrap(worse)[0])


def test_a_picture_depends_on_its_place_and_not_on_how_many_follow() -> None:
    def denoise(x: Tensor, _sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return x[:, :, :1, :1].expand_as(x) / 2  # something that depends on the noise of each sample alone

    many = paint(denoise, [Prompt()] * (CHUNK + 3), seed=5)
    assert torch.equal(many[:CHUNK], paint(denoise, [Prompt()] * CHUNK, seed=5))
    assert not torch.equal(many, paint(denoise, [Prompt()] * (CHUNK + 3), seed=6))


def test_sdxls_parameters_are_those_of_the_paper() -> None:
    """0.07 M gates and 1.33 M masks (Table 1), the first 1/19 of the second."""
    assert sdxl_parameters() == (71_680, 1_331_200)


def test_work_in_processes_gives_what_work_here_gives() -> None:
    items = [4.0, 9.0, 16.0]
    assert dict(side_by_side(math.sqrt, items, workers=2)) == {item: math.sqrt(item) for item in items}
    assert Counter(item for item, _ in side_by_side(math.sqrt, items, workers=1)) == Counter(items)
