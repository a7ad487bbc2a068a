"""Masks alone: with the two sources they are the same merge again, with any other they are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.ldm_unet import SDXL
from duolora_core import LoraPair, LowRank, make_merged, make_pair, match_to_model, open_gates, read_lora
from duolora_core.errors import FileTakenError, LoraFileError
from duolora_core.merge.masks_file import gates_of, read_masks, save_masks
from duolora_core.merge.stack import Basis
from factors import Factors, random_factors, shapes_of
from spellings import spell
from tiny import ATTENTION, layout, pick
from worlds import bare_lora, placed_lora, random_gates

LAYERS = pick(ATTENTION)[:6]


def source(folder: Path, name: str, seed: int, layers: Sequence[str] = LAYERS, rank: int = 3) -> Path:
    factors: Mapping[str, Factors] = random_factors(shapes_of(layers), rank, seed)
    save_file(spell(factors), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def pair_of(content: Path, style: Path, strength: float = 1.0, basis: Basis = "svd") -> LoraPair:
    concepts = match_to_model(read_lora(content), layout(), strength), match_to_model(read_lora(style), layout())
    return make_pair(*concepts, layout(), basis)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    return source(tmp_path, "content", 1), source(tmp_path, "style", 2, LAYERS[1:], rank=2)


@pytest.fixture
def saved(sources: tuple[Path, Path], tmp_path: Path) -> Path:
    pair = pair_of(*sources)
    return save_masks(tmp_path / "merge.masks.safetensors", random_gates(pair), pair, {"steps": 3})


@pytest.mark.parametrize("basis", ["svd", "factors"])
def test_masks_make_the_same_merge_again(sources: tuple[Path, Path], basis: Basis, tmp_path: Path) -> None:
    pair = pair_of(*sources, basis=basis)
    gates = random_gates(pair)
    path = save_masks(tmp_path / "masks.safetensors", gates, pair, {})
    again = pair_of(*sources, basis=basis)
    loaded = gates_of(read_masks(path), again)
    assert torch.equal(loaded.values, gates.values)
    one, two = make_merged(pair, gates).fold(0.9, 1.1), make_merged(again, loaded).fold(0.9, 1.1)
    assert one.layers.keys() == two.layers.keys()
    for name, low_rank in one.layers.items():
        assert torch.equal(two.layers[name].up, low_rank.up) and torch.equal(two.layers[name].down, low_rank.down)


def test_masks_with_gradients_can_be_saved(sources: tuple[Path, Path], tmp_path: Path) -> None:
    pair = pair_of(*sources)
    gates = open_gates(pair)
    gates.values.requires_grad_()
    path = save_masks(tmp_path / "m.safetensors", gates, pair, {})
    assert torch.equal(gates_of(read_masks(path), pair).values, open_gates(pair).values)


def test_masks_of_other_sources_are_refused(sources: tuple[Path, Path], saved: Path, tmp_path: Path) -> None:
    content, style = sources
    others: dict[str, tuple[LoraPair, str]] = {
        "another content": (pair_of(source(tmp_path, "stranger", 9), style), "content LoRA content.safetensors"),
        "another style": (
            pair_of(content, source(tmp_path, "alien", 9, LAYERS[1:], 2)),
            "style LoRA style.safetensors",
        ),
        "exchanged": (pair_of(style, content), "content LoRA content.safetensors"),
        "another strength": (pair_of(content, style, strength=0.5), "strength 0.5"),
        "another basis": (pair_of(content, style, basis="factors"), "basis 'svd', but 'factors'"),
    }
    for case, (pair, words) in others.items():
        with pytest.raises(LoraFileError) as caught:
            gates_of(read_masks(saved), pair)
        assert words in str(caught.value) and saved.name in str(caught.value), case


@pytest.mark.parametrize("change", ["layer", "rank"])
def test_masks_for_other_layers_or_ranks_are_refused(sources: tuple[Path, Path], saved: Path, change: str) -> None:
    """The same two files on a model that lacks a layer, or a pair cut to another rank."""
    pair = pair_of(*sources)
    if change == "layer":
        content = {name: low_rank for name, low_rank in pair.content.items() if name != LAYERS[0]}
    else:
        content = {name: low_rank.select(torch.arange(low_rank.rank) < 2) for name, low_rank in pair.content.items()}
    with pytest.raises(LoraFileError, match=LAYERS[0]):
        gates_of(read_masks(saved), replace(pair, contents=(replace(pair.content_lora, layers=content),)))


def test_a_masks_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match=r"gone\.masks\.safetensors: there is no such file"):
        read_masks(tmp_path / "gone.masks.safetensors")


@pytest.mark.parametrize("kind", ["plain LoRA", "cut short", "not safetensors"])
def test_what_is_no_masks_file_is_refused(sources: tuple[Path, Path], saved: Path, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    content = {
        "plain LoRA": sources[0].read_bytes(),
        "cut short": saved.read_bytes()[:-5],
        "not safetensors": b"<html>",
    }
    path.write_bytes(content[kind])
    with pytest.raises(LoraFileError, match=r"odd\.safetensors is not a"):
        gates_of(read_masks(path), pair_of(*sources))


@pytest.mark.parametrize("damage", [{"duolora_masks": '"svd"', "to": '"other"'}, {"duolora_recipe": "{", "to": "[1"}])
def test_damaged_metadata_is_refused_and_never_guessed(saved: Path, damage: dict[str, str], tmp_path: Path) -> None:
    """An unknown basis is not taken for one that we know, and a recipe that is no JSON object is none."""
    key, old = next(item for item in damage.items() if item[0] != "to")
    with safe_open(saved, framework="pt") as file:
        held = file.metadata()
    assert old in held[key]
    path = tmp_path / "odd.safetensors"
    save_file(load_file(saved), path, {**held, key: held[key].replace(old, damage["to"])})
    with pytest.raises(LoraFileError, match=r"odd\.safetensors is not a DuoLoRA masks file"):
        read_masks(path)


def test_masks_of_a_lora_model_are_bound_to_its_values(tmp_path: Path) -> None:
    """A LoRA fresh from training is no file; its tensors identify it."""

    def fresh(seed: int) -> LoraPair:
        content, style = (placed_lora(random_factors(shapes_of(LAYERS), 3, seed)) for seed in (seed, 7))
        return make_pair(content, style, layout())

    gates = random_gates(fresh(1))
    path = save_masks(tmp_path / "m.safetensors", gates, fresh(1), {})
    assert torch.equal(gates_of(read_masks(path), fresh(1)).values, gates.values)
    with pytest.raises(LoraFileError, match="was made from the content LoRA"):
        gates_of(read_masks(path), fresh(2))


def test_masks_never_replace_a_file(sources: tuple[Path, Path], saved: Path) -> None:
    pair, before = pair_of(*sources), saved.read_bytes()
    with pytest.raises(FileTakenError):
        save_masks(saved, open_gates(pair), pair, {})
    assert saved.read_bytes() == before


def test_masks_of_sdxl_at_rank_64_are_a_third_of_a_megabyte(tmp_path: Path) -> None:
    """560 attention layers, 128 gates each: 0.29 MB of numbers and the header; the merged LoRA is about 350 MB."""
    table = layout(SDXL)
    hollow = {
        name: LowRank(torch.zeros(()).expand(table.layers[name].shape[0], 64), torch.zeros(()).expand(64, 1))
        for name in pick(ATTENTION, table)
    }
    side = bare_lora(hollow, sha256="0" * 64)
    pair = make_pair(side, side, table, "factors")
    path = save_masks(tmp_path / "sdxl.safetensors", open_gates(pair), pair, {"steps": 100})
    assert 300_000 < path.stat().st_size < 450_000
    assert sum(tensor.numel() for tensor in load_file(path).values()) == 71_680
