"""How much memory each state of a LoRA holds, in bytes a parameter: nothing is there twice that could be shared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from duolora_core import (
    LoraFile,
    LowRank,
    initial_gates,
    kohya_state_dict,
    make_merged,
    make_pair,
    match_to_model,
    read_lora,
)
from duolora_core.lora.adapters import PlainLora
from duolora_core.merge.roles import layer_roles
from factors import random_factors, shapes_of
from spellings import spell
from tiny import TEXT_SHAPES, VARIED, layout, pick


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of all memory that these tensors keep alive, shared memory once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def of_file(file: LoraFile) -> list[Tensor]:
    plain = [entry for entry in file.entries.values() if isinstance(entry, PlainLora)]
    return [tensor for entry in plain for tensor in (entry.up, entry.down)]


def of_layers(layers: Iterable[LowRank]) -> list[Tensor]:
    return [tensor for low_rank in layers for tensor in (low_rank.up, low_rank.down)]


def test_two_bytes_a_parameter_from_the_file_and_four_where_it_is_computed_with(tmp_path: Path) -> None:
    shapes = shapes_of(pick(VARIED)) | TEXT_SHAPES
    concepts: list[LoraFile] = []
    for seed in (1, 2):
        tensors = {key: tensor.half() for key, tensor in spell(random_factors(shapes, 2, seed)).items()}
        save_file(tensors, tmp_path / f"{seed}.safetensors")
        concepts.append(read_lora(tmp_path / f"{seed}.safetensors"))
    parameters = sum(tensor.numel() for tensor in of_file(concepts[0]))
    assert held(of_file(concepts[0])) < 2.05 * parameters + 1000  # alphas stand between them

    content, style = (match_to_model(file, layout()) for file in concepts)
    placed = of_layers([*content.layers.values(), *content.text.values()])
    assert held(placed) == 4 * parameters

    pair = make_pair(content, style, layout())
    sides = [part for concept in (pair.content_lora, pair.style_lora) for part in concept.layers.values()]
    text = [part for concept in (pair.content_lora, pair.style_lora) for part in concept.text.values()]
    assert held(of_layers([*sides, *text])) == 2 * 4 * parameters
    assert {id(part) for part in text} == {id(part) for each in (content, style) for part in each.text.values()}

    gates = initial_gates(pair, layer_roles(pair.layout, "resolution"))
    merged = make_merged(pair, gates)
    parts = [low_rank for part in merged.parts for low_rank in part.layers.values()]
    merged_text = [low_rank for part in merged.parts for low_rank in part.text.values()]
    assert held(of_layers([*parts, *merged_text])) == 2 * 4 * parameters
    assert held(of_layers([*parts, *sides])) == held(of_layers(sides))  # the merge is its pair and the gates
    state = kohya_state_dict(merged.fold())
    assert held(tensor for tensor in state.values() if tensor.ndim) == 2 * 2 * parameters
    assert all(tensor.dtype == torch.float16 for tensor in state.values() if tensor.ndim)
