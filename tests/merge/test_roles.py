"""The roles of blocks against the table of the real models, written by hand."""

from __future__ import annotations

import pytest

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, TINY, UNetConfig
from duolora_core import layer_roles
from duolora_core.errors import SettingsError
from tiny import layout

MODELS = {"sdxl": SDXL, "ssd_1b": SSD_1B, "vega": SEGMIND_VEGA, "tiny": TINY}
PRESETS = ("resolution", "b_lora_aware", "authors_code", "none")
TABLE = {  # attention block: its role in each preset
    "down_blocks.1.attentions.0": ("style", "style", "style", "neutral"),
    "down_blocks.1.attentions.1": ("style", "style", "style", "neutral"),
    "down_blocks.2.attentions.0": ("content", "content", "content", "neutral"),
    "down_blocks.2.attentions.1": ("content", "content", "content", "neutral"),
    "mid_block.attentions.0": ("content", "content", "neutral", "neutral"),
    "up_blocks.0.attentions.0": ("content", "content", "neutral", "neutral"),
    "up_blocks.0.attentions.1": ("content", "style", "neutral", "neutral"),
    "up_blocks.0.attentions.2": ("content", "content", "neutral", "neutral"),
    "up_blocks.1.attentions.0": ("style", "style", "style", "neutral"),
    "up_blocks.1.attentions.1": ("style", "style", "style", "neutral"),
    "up_blocks.1.attentions.2": ("style", "style", "style", "neutral"),
}


def roles_of_blocks(config: UNetConfig, prior: str, spelling: str = "diffusers") -> dict[str, str]:
    """All layers of a block share one role."""
    table = layout(config)
    roles: dict[str, str] = {}
    for name, role in layer_roles(table, prior).items():
        block = table.layers[name].block
        assert roles.setdefault(getattr(block, spelling), role) == role
    return roles


@pytest.mark.parametrize("config", list(MODELS.values()), ids=list(MODELS))
@pytest.mark.parametrize(("column", "preset"), [(i, preset) for i, preset in enumerate(PRESETS)])
def test_a_preset_is_its_table(config: UNetConfig, column: int, preset: str) -> None:
    found = {block: role for block, role in roles_of_blocks(config, preset).items() if ".attentions." in block}
    has_mid = config.mid_depth is not None
    assert found == {block: roles[column] for block, roles in TABLE.items() if has_mid or "mid" not in block}


@pytest.mark.parametrize("config", list(MODELS.values()), ids=list(MODELS))
def test_resnets_follow_their_resolution_and_the_ends_are_neutral(config: UNetConfig) -> None:
    roles = roles_of_blocks(config, "resolution")
    assert {roles[f"{block}.resnets.0"] for block in ("down_blocks.2", "mid_block", "up_blocks.0")} == {"content"}
    shallow = ("down_blocks.0", "down_blocks.1", "up_blocks.1", "up_blocks.2")
    assert {roles[f"{block}.resnets.0"] for block in shallow} == {"style"}
    assert {roles[block] for block in ("conv_in", "conv_out", "time_embedding", "add_embedding")} == {"neutral"}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_layer_has_a_role(preset: str) -> None:
    assert layer_roles(layout(SDXL), preset).keys() == layout(SDXL).layers.keys()


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("mid_block=content", {"mid_block.attentions.0": "content", "mid_block.resnets.0": "content"}),
        ("middle_block=content", {"mid_block.attentions.0": "content", "mid_block.resnets.1": "content"}),
        ("middle_block.1 = style", {"mid_block.attentions.0": "style", "mid_block.resnets.1": "neutral"}),
        (
            "up_blocks.0=content, up_blocks.0.attentions.1=style",
            {"up_blocks.0.attentions.0": "content", "up_blocks.0.attentions.1": "style"},
        ),
        (
            "up_blocks.0.attentions.1=style\nup_blocks.0=content\n",  # the order does not matter
            {"up_blocks.0.attentions.2": "content", "up_blocks.0.attentions.1": "style"},
        ),
        (
            "up_blocks.0=content, output_blocks.1=style",
            {"up_blocks.0.attentions.0": "content", "up_blocks.0.attentions.1": "style"},
        ),
        ("output_blocks=style, up_blocks.0.attentions.1=neutral", {"up_blocks.0.attentions.1": "neutral"}),
        ("input_blocks.4.1=style", {"down_blocks.1.attentions.0": "style", "down_blocks.1.attentions.1": "neutral"}),
        ("conv_in=style", {"conv_in": "style", "down_blocks.0.resnets.0": "neutral"}),
        (" , mid_block = content ,, ", {"mid_block.attentions.0": "content"}),
    ],
)
def test_a_custom_prior_takes_both_spellings_and_the_longest_name(prior: str, expected: dict[str, str]) -> None:
    roles = roles_of_blocks(SDXL, prior)
    assert {block: roles[block] for block in expected} == expected


def test_blocks_not_named_are_neutral() -> None:
    roles = roles_of_blocks(SDXL, "mid_block=content, output_blocks.1.1=style")
    named = {b for b, role in roles.items() if role != "neutral"}
    assert named == {"mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1", "up_blocks.0.attentions.1"}


def test_a_number_is_a_whole_number() -> None:
    """output_blocks.1 has nothing to do with a block 10, nor up_blocks.1 with a block 10."""
    long = UNetConfig(down_depths=((0,) * 11, (1,)), up_depths=((0,) * 12, (1, 1)), multipliers=(1, 2), mid_depth=None)
    roles = roles_of_blocks(long, "input_blocks.1=style", "ldm")
    assert [block for block, role in roles.items() if role == "style"] == ["input_blocks.1.0"]


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("", ("empty", "resolution")),
        (" ,\n, ", ("empty",)),
        ("mid_block", ("mid_block", "content, style, neutral", "authors_code")),
        ("mid_block=contents", ("mid_block=contents", "content, style, neutral")),
        ("resolutoin", ("resolutoin", "resolution")),
        ("up_blocks.7=style", ("up_blocks.7", "up_blocks.0.attentions.1")),
        ("mid=style", ("'mid'", "mid_block.attentions.0")),
        ("up_blocks.0.attention=style", ("up_blocks.0.attention'",)),
    ],
)
def test_what_is_not_understood_is_said_with_what_would_be(prior: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        layer_roles(layout(SDXL), prior)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_block_that_this_model_lacks_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no block 'mid_block\.attentions'"):
        layer_roles(layout(SSD_1B), "mid_block.attentions=content")
