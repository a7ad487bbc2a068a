"""Saving: what is written reads back to the same deltas, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from duolora_core import LowRank, kohya_state_dict, lora_from_tensors, make_merged, make_pair, match_to_model, read_lora
from duolora_core.errors import LoraFileError
from duolora_core.lora.adapters import PlainLora
from duolora_core.lora.folded import FoldedLora
from duolora_core.lora.metadata import VERSION, FileInfo, metadata
from duolora_core.lora.save import write_safetensors
from factors import random_factors, shapes_of
from tiny import TEXT_SHAPES, VARIED, layout, pick
from worlds import dense_low_rank, placed_lora, random_gates, relative


def folded(max_rank: int | None = None) -> FoldedLora:
    """A merge over every kind of layer, text encoders and offsets."""
    names = pick(VARIED)
    quarter, half = torch.full((64,), 0.25), torch.full((64,), -0.5)
    offsets = {"middle_block.1.norm.diff": quarter, "middle_block.1.proj_in.diff_b": half}
    content = placed_lora(random_factors(shapes_of(names[2:]) | TEXT_SHAPES, 4, 1), offsets=offsets)
    style = placed_lora(random_factors(shapes_of(names[:-2]) | TEXT_SHAPES, 3, 2))
    pair = make_pair(content, style, layout())
    return make_merged(pair, random_gates(pair)).fold(0.9, 1.1, max_rank)


TOLERANCE = {torch.float32: 1e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
"""Both factors are rounded to a relative 2⁻¹¹ (fp16) or 2⁻⁸ (bf16) at most: twice that for their product."""


@pytest.mark.parametrize("max_rank", [None, 3])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_a_saved_merge_reads_back_to_the_same_deltas(dtype: torch.dtype, max_rank: int | None, tmp_path: Path) -> None:
    lora = folded(max_rank)
    path = write_safetensors(tmp_path / "merged.safetensors", kohya_state_dict(lora, dtype), {})
    back = match_to_model(read_lora(path), layout())
    assert back.skipped == {}
    for saved, read in ((lora.layers, back.layers), (lora.text, back.text)):
        assert saved.keys() == read.keys()
        for name, low_rank in saved.items():
            assert read[name].rank == low_rank.rank
            assert relative(dense_low_rank(read[name]), dense_low_rank(low_rank)) < TOLERANCE[dtype], name
    assert (
        back.offsets.keys()
        == lora.offsets.keys()
        == {
            ("middle_block.1.norm", "weight"),
            ("middle_block.1.proj_in", "bias"),
        }
    )
    for key, offset in lora.offsets.items():
        assert torch.allclose(back.offsets[key], offset, rtol=TOLERANCE[dtype])


def test_the_file_is_kohyas() -> None:
    """Names, shapes and scale that ComfyUI, A1111, Forge and diffusers expect: 4-D kernels, up 1x1, one alpha."""
    lora = folded()
    tensors = kohya_state_dict(lora, torch.float16)
    layers = {"lora_unet_" + name.replace(".", "_"): (lora.shapes[name], r.rank) for name, r in lora.layers.items()}
    layers |= {key: ((r.up.shape[0], r.down.shape[1]), r.rank) for key, r in lora.text.items()}
    assert {key.rpartition(".diff")[0] for key in tensors if ".diff" in key} == {
        "lora_unet_middle_block_1_norm",
        "lora_unet_middle_block_1_proj_in",
    }
    assert len(tensors) == 3 * len(layers) + 2
    for key, (shape, rank) in layers.items():
        ones = (1,) * (len(shape) - 2)
        assert tuple(tensors[f"{key}.lora_up.weight"].shape) == (shape[0], rank, *ones)
        assert tuple(tensors[f"{key}.lora_down.weight"].shape) == (rank, *shape[1:])
        assert float(tensors[f"{key}.alpha"]) == max(rank for _, rank in layers.values())
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert {t.dtype for key, t in tensors.items() if not key.endswith("alpha")} == {torch.float16}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_alpha_is_exact_at_any_rank(dtype: torch.dtype) -> None:
    """bf16 would store a rank of 257 as 256, and every reader would then scale the layer by 256/257."""
    factors = LowRank(torch.ones(64, 257), torch.ones(257, 16))
    lora = FoldedLora({"time_embed.0": factors}, {}, {}, {"time_embed.0": (64, 16)}, 0)
    file = lora_from_tensors(kohya_state_dict(lora, dtype), "x")
    entry = file.entries["lora_unet_time_embed_0"]
    assert isinstance(entry, PlainLora)
    assert entry.alpha == 257


@pytest.mark.parametrize("value", [1e10, float("inf"), float("nan")])
def test_values_too_large_for_fp16_are_refused(value: float) -> None:
    factors = LowRank(torch.ones(64, 1), torch.full((1, 16), value))
    lora = FoldedLora({"time_embed.0": factors}, {}, {}, {"time_embed.0": (64, 16)}, 0)
    with pytest.raises(LoraFileError, match=r"lora_unet_time_embed_0.*float16.*fp32 or bf16"):
        kohya_state_dict(lora, torch.float16)
    if value == 1e10:
        assert bool(kohya_state_dict(lora, torch.bfloat16)["lora_unet_time_embed_0.lora_down.weight"].isfinite().all())


def largest_rank(lora: FoldedLora) -> int:
    return max(low_rank.rank for low_rank in (*lora.layers.values(), *lora.text.values()))


RECIPE = {"content": "Hündchen.safetensors", "config": {"steps": 100, "seed": 3}, "strengths": [0.9, 1.1], "none": None}
INFO = FileInfo("dog in ink", "a <V1> dog in <S2> style", "v", ("dog.safetensors", "ink.safetensors"))


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    lora = folded()
    path = write_safetensors(tmp_path / "m.safetensors", kohya_state_dict(lora), metadata(lora, INFO, RECIPE))
    with safe_open(path, framework="pt") as file:
        held = file.metadata()
    assert held == metadata(lora, INFO, RECIPE)
    assert json.loads(held["duolora_recipe"]) == RECIPE
    assert held["ss_network_module"] == "networks.lora"
    assert held["modelspec.title"] == INFO.title
    assert held["modelspec.trigger_phrase"] == INFO.trigger_phrase
    assert held["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert held["modelspec.prediction_type"] == "v"
    assert held["modelspec.merged_from"] == "dog.safetensors, ink.safetensors"
    assert held["duolora_version"] == VERSION


@pytest.mark.parametrize(("max_rank", "dim"), [(None, "Dynamic"), (1, "1")])
def test_network_dim_is_the_rank_if_there_is_one(max_rank: int | None, dim: str) -> None:
    values = metadata(folded(max_rank), FileInfo("x"), {})
    assert values["ss_network_dim"] == dim
    assert values["ss_network_alpha"] == str(largest_rank(folded(max_rank)))
    assert values["modelspec.prediction_type"] == "epsilon"
    assert "modelspec.trigger_phrase" not in values
    assert not any("date" in key or "time" in key for key in values)  # the same merge saved again is the same file
