"""The prompt that a file gives by itself where the artist leaves it empty."""

from __future__ import annotations

import json

import pytest

from duolora_core.lora.trigger_words import FilePrompt, file_prompt

TAGS = {"ss_tag_frequency": json.dumps({"5_a": {"sks dog": 20, "grass": 12, "outdoors": 10, "ball": 4}})}
PHRASE = "modelspec.trigger_phrase"
NAME = "SksDog_SDXL-v2_000010.safetensors"


@pytest.mark.parametrize(
    ("metadata", "beside", "text", "source"),
    [
        ({PHRASE: "a photo of sks dog", **TAGS}, ["red"], "a photo of sks dog", "its trigger phrase"),
        (
            {PHRASE: "sks dog", **TAGS},
            ["red"],
            "sks dog, grass, outdoors",
            "its trigger phrase and the commonest tags of its training pictures",
        ),
        (
            TAGS,
            ["wtr", "red"],
            "wtr, red, sks dog, grass, outdoors",
            "the trigger words beside the file and the commonest tags of its training pictures",
        ),
        ({}, ["ink", "wash"], "ink, wash", "the trigger words beside the file"),
        (TAGS, [], "sks dog, grass, outdoors", "the commonest tags of its training pictures"),
        ({}, [], "Sks Dog", "its file name, as it names no trigger words"),
        ({"ss_tag_frequency": "[1]"}, [], "Sks Dog", "its file name, as it names no trigger words"),
        ({PHRASE: "embedding:../secret"}, [], "Sks Dog", "its file name, as it names no trigger words"),
    ],
)
def test_phrase_then_authors_words_then_tags_then_name(
    metadata: dict[str, str], beside: list[str], text: str, source: str
) -> None:
    assert file_prompt(NAME, metadata, beside) == FilePrompt(text, source)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("watercolor_style-XL_v1.5.safetensors", "watercolor style"),
        ("sub/RedPandaPlush-lora-rank64.SAFETENSORS", "Red Panda Plush"),
        ("水彩画_illustrious.safetensors", "水彩画"),
        ("(embedding:secret:1.4).safetensors", "embedding secret"),
    ],
)
def test_a_name_becomes_words(name: str, text: str) -> None:
    """Without what a prompt would take for weights or for the name of an embedding."""
    found = file_prompt(name, {})
    assert found is not None and found.text == text


@pytest.mark.parametrize("name", ["", "style.safetensors", "my_lora_v3.safetensors", "sdxl-000010.safetensors"])
def test_a_name_that_says_nothing_is_no_prompt(name: str) -> None:
    assert file_prompt(name, {}) is None


def test_trigger_words_alone_are_told_from_a_whole_prompt() -> None:
    assert FilePrompt("a photo of sks dog", "").is_whole
    assert not FilePrompt("sks dog", "").is_whole


def test_a_prompt_out_of_a_file_is_bounded() -> None:
    tags = {"a": {f"{letter * 200}": 1 for letter in "abcdefgh"}}
    found = file_prompt(NAME, {"ss_tag_frequency": json.dumps(tags)})
    assert found is not None and len(found.text) == 300
