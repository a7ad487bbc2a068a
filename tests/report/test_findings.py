"""The words of a report follow the numbers: each hint where it belongs, and none where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from duolora_core.merge.overlap import BlockOverlap, Overlap
from duolora_core.merge.statistics import BlockGates
from duolora_core.report import Prompts, findings, shares_a_word

BLOCKS = [BlockGates(f"mid_block.attentions.{i}", "content", 0.8, 0.9, 60, 64, 60, 64) for i in range(2)]
USUAL = [BlockOverlap(block.name, Overlap(1.0, 1.0, 0.02), Overlap(0.8, 0.9, 0.02)) for block in BLOCKS]
FALLING = {"total": [1.0] * 15 + [0.5] * 15}
PROMPTS = Prompts("a sks dog", "a painting in wtrclr style", "a sks dog, wtrclr")


def hints(**changed: object) -> list[str]:
    given: dict[str, object] = {"losses": FALLING, "blocks": BLOCKS, "overlaps": USUAL, "prompts": PROMPTS, **changed}
    return [found.text for found in findings(**given) if found.kind == "hint"]  # type: ignore[arg-type]


def overlapping(cosine: float) -> list[BlockOverlap]:
    return [USUAL[0], replace(USUAL[1], before=Overlap(1.0, 1.0, cosine))]


def test_a_usual_merge_has_facts_and_no_hints() -> None:
    assert hints() == []
    told = " ".join(found.text for found in findings(FALLING, BLOCKS, USUAL, PROMPTS))
    assert "the content keeps 89% of its strength" in told and "the style keeps 95%" in told
    assert "cosine 0.02" in told
    assert "fell by 50%" in told


@pytest.mark.parametrize(
    ("cosine", "words"), [(0.5, "do much the same in mid · attn 1"), (-0.5, "work against each other in mid · attn 1")]
)
def test_one_block_that_overlaps_is_named(cosine: float, words: str) -> None:
    (hint,) = hints(overlaps=overlapping(cosine))
    assert words in hint


@pytest.mark.parametrize("role", ["content", "style"])
def test_a_collapsed_role_is_named_once(role: str) -> None:
    closed = [replace(block, **{f"{role}_active": 3, f"{role}_mean": 0.01}) for block in BLOCKS]
    (hint,) = hints(blocks=closed, overlaps=[faded(each, role) for each in USUAL])
    assert f"The {role} masks have nearly closed (6 of 128" in hint


@pytest.mark.parametrize("role", ["content", "style"])
def test_a_faded_role_is_named_with_its_dial(role: str) -> None:
    (hint,) = hints(overlaps=[faded(each, role) for each in USUAL])
    assert f"The {role} has faded" in hint and f"{role}_strength" in hint


def faded(each: BlockOverlap, role: str) -> BlockOverlap:
    return replace(each, after=replace(each.after, **{role: 0.04}))


@pytest.mark.parametrize("role", ["content", "style"])
def test_a_much_stronger_lora_is_named(role: str) -> None:
    overlaps = [
        BlockOverlap(each.name, replace(each.before, **{role: 16.0}), replace(each.after, **{role: 14.0}))
        for each in USUAL
    ]
    (hint,) = hints(overlaps=overlaps)
    assert f"The {role} LoRA is 4.0 times as strong" in hint


def test_masks_that_did_not_move_are_told() -> None:
    still = [replace(block, content_mean=1.01, style_mean=0.99) for block in BLOCKS]
    assert "hardly moved" in hints(blocks=still)[0]
    half = [replace(still[0], style_mean=0.5), still[1]]
    assert hints(blocks=half) == []
    alone = [replace(block, content_mean=1.01, style_mean=0.0, style_rank=0, style_active=0) for block in BLOCKS]
    assert "hardly moved" in " ".join(hints(blocks=alone))


def test_a_loss_that_does_not_fall_is_told_only_where_there_are_enough_steps() -> None:
    assert "has not fallen" in hints(losses={"total": [0.5] * 15 + [1.0] * 15})[0]
    assert hints(losses={"total": [0.5] * 5 + [1.0] * 5}) == []
    assert hints(losses={}) == []


@pytest.mark.parametrize(
    ("combined", "missing"),
    [
        ("a dog in wtrclr style", None),
        ("a cat in wtrclr style", "content"),
        ("a sks dog in a style", "style"),
        ("SKS dog, WTRCLR", None),
        ("", None),
    ],
)
def test_a_prompt_without_a_trigger_is_told(combined: str, missing: str | None) -> None:
    found = hints(prompts=replace(PROMPTS, combined=combined))
    assert len(found) == (0 if missing is None else 1)
    assert missing is None or f"no word of the {missing} prompt" in found[0]


def test_a_combination_says_what_to_connect_instead() -> None:
    (found,) = findings({}, [], [])
    assert "that it came from" in found.text


@pytest.mark.parametrize(
    ("combined", "prompt", "shares"),
    [
        ("a SKS dog in wtrclr style", "a photo of sks", True),
        ("a green bicycle in a style", "a painting in wtrclr style", False),
        ("", "a photo of sks", True),
        ("...", "a photo of sks", True),
        ("a green bicycle", "a photo", True),
    ],
)
def test_a_telling_word_in_common(combined: str, prompt: str, shares: bool) -> None:
    """Small and common words do not tell a LoRA; where there is nothing to share nothing is missing."""
    assert shares_a_word(combined, prompt) == shares
