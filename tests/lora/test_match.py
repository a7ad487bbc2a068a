"""Placing a LoRA on a model: strength, spellings, offsets, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duolora_core import lora_from_tensors, make_pair, match_to_model
from duolora_core.errors import LoraFileError, ModelMismatchError
from factors import dense, random_factors, shapes_of
from spellings import FORMATS, spell
from tiny import TEXT_SHAPES, layout, pick
from worlds import bare_lora, dense_low_rank, lora, placed_lora, relative

LINEAR = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"  # (32, 32)
NORM = "input_blocks.4.1.transformer_blocks.0.norm1"  # (32,)
CONV = "input_blocks.4.0.in_layers.2"  # (32, 16, 3, 3)
FACTORS = random_factors(shapes_of([LINEAR, CONV]) | TEXT_SHAPES, rank=2)


@pytest.mark.parametrize("strength", [1.0, 0.4, 0.0, -1.0])
def test_strength_scales_every_part(strength: float) -> None:
    offsets = {f"{NORM}.diff": torch.arange(32.0), f"{LINEAR}.diff_b": torch.ones(32)}
    full, scaled = (match_to_model(lora(FACTORS, offsets=offsets), layout(), s) for s in (1.0, strength))
    for whole, part in ((full.layers, scaled.layers), (full.text, scaled.text)):
        assert whole.keys() == part.keys()
        for name, low_rank in whole.items():
            assert torch.allclose(part[name].delta(), strength * low_rank.delta(), rtol=1e-5, atol=1e-7)
    assert full.offsets.keys() == scaled.offsets.keys() == {(NORM, "weight"), (LINEAR, "bias")}
    for key, offset in full.offsets.items():
        assert torch.equal(scaled.offsets[key], strength * offset)


def test_a_convolution_is_held_flat() -> None:
    assert relative(dense_low_rank(placed_lora(FACTORS).layers[CONV]), dense(FACTORS[CONV]).flatten(1)) < 1e-6


def test_a_linear_written_as_1x1_convolution_is_the_same() -> None:
    tensors = spell({LINEAR: FACTORS[LINEAR]})
    as_conv = {key: tensor[:, :, None, None] for key, tensor in tensors.items()}
    one, other = (match_to_model(lora_from_tensors(t, "x"), layout()).layers[LINEAR] for t in (tensors, as_conv))
    assert torch.equal(one.delta(), other.delta())


def test_placing_copies() -> None:
    tensors = spell(FACTORS, FORMATS["comfy"])
    placed = match_to_model(lora_from_tensors(tensors, "x"), layout())
    before = placed.layers[LINEAR].delta()
    for tensor in tensors.values():
        tensor.zero_()
    assert torch.equal(placed.layers[LINEAR].delta(), before)
    assert placed.layers[LINEAR].up.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "up", "down", "words"),
    [
        (LINEAR, (33, 2), (2, 32), ("33 x 32", "(33, 2)", "(32, 32)")),
        (LINEAR, (32, 2), (2, 40), ("32 x 40", "(2, 40)", "(32, 32)")),
        (CONV, (32, 2, 1, 1), (2, 16, 1, 1), ("32 x 16", "(32, 16, 3, 3)")),
        (NORM, (32, 2), (2, 1), ("32 x 1", "(32,)")),
    ],
)
def test_a_shape_of_another_model_is_refused_with_both_shapes(
    name: str, up: tuple[int, ...], down: tuple[int, ...], words: tuple[str, ...]
) -> None:
    key = f"diffusion_model.{name}"
    tensors = {f"{key}.lora_up.weight": torch.ones(up), f"{key}.lora_down.weight": torch.ones(down)}
    with pytest.raises(ModelMismatchError) as caught:
        match_to_model(lora_from_tensors(tensors, "big.safetensors"), layout())
    assert all(word in str(caught.value) for word in ("big.safetensors", key, *words)), str(caught.value)


@pytest.mark.parametrize(
    ("key", "offset"),
    [
        (f"{NORM}.diff", torch.ones(31)),
        (f"{LINEAR}.diff_b", torch.ones(33)),
        (f"{LINEAR}.diff", torch.ones(32)),  # a matrix has no 1-D change
        (f"{CONV}.diff", torch.ones(32)),
    ],
)
def test_an_offset_that_does_not_fit_is_refused(key: str, offset: Tensor) -> None:
    with pytest.raises(ModelMismatchError, match="offset") as caught:
        match_to_model(lora(FACTORS, offsets={key: offset}), layout())
    assert str(tuple(offset.shape)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "te1.text_model.encoder.layers.0.self_attn.q_proj",
            r"a\.safetensors changes only the text encoders \(1 layers",
        ),
        ("elsewhere.0.conv", r"a\.safetensors: none of its 1 layers is in this model .* does not know"),
    ],
)
def test_nothing_in_common_with_the_model_is_refused(name: str, words: str) -> None:
    factors = random_factors({name: (8, 8)}, rank=2)
    with pytest.raises(ModelMismatchError, match=words):
        match_to_model(lora(factors, "a.safetensors"), layout())


def test_one_layer_under_two_spellings_is_refused() -> None:
    factors = {LINEAR: FACTORS[LINEAR]}
    tensors = spell(factors, FORMATS["kohya_ldm"]) | spell(factors, FORMATS["kohya_diffusers"])
    with pytest.raises(LoraFileError, match=f"{LINEAR} is there twice"):
        match_to_model(lora_from_tensors(tensors, "x"), layout())


def test_layers_of_another_depth_are_skipped_by_name() -> None:
    """SDXL's block 9 on a model of depth 1 (Vega): the rest of the LoRA still works."""
    deep = "lora_unet_input_blocks_4_1_transformer_blocks_9_attn1_to_q"
    extra = {f"{deep}.lora_up.weight": torch.ones(32, 2), f"{deep}.lora_down.weight": torch.ones(2, 32)}
    tensors = spell(FACTORS) | extra
    placed = match_to_model(lora_from_tensors(tensors, "x"), layout())
    assert placed.skipped == {deep: "the model has no such layer"}
    assert set(placed.layers) == {LINEAR, CONV}


def test_a_pair_takes_layers_that_either_covers_in_forward_order() -> None:
    content, style = pick(r"^(out\.2|middle_block\.0)"), pick(r"^(input_blocks\.4\.0|middle_block\.0)")
    pair = make_pair(
        placed_lora(random_factors(shapes_of(content), 3)), placed_lora(random_factors(shapes_of(style), 2)), layout()
    )
    assert pair.names == tuple(name for name in layout().layers if name in {*content, *style})
    assert pair.ranks("out.2") == (3, 0)
    assert pair.ranks("input_blocks.4.0.in_layers.2") == (0, 2)
    assert pair.ranks("middle_block.0.in_layers.2") == (3, 2)


@pytest.mark.parametrize("basis", ["svd", "factors"])
def test_either_basis_holds_the_same_deltas(basis: str) -> None:
    placed = placed_lora(FACTORS)
    pair = make_pair(placed, placed, layout(), basis)  # type: ignore[arg-type]
    for name, low_rank in placed.layers.items():
        assert relative(pair.content[name].delta(), low_rank.delta()) < 2e-6
        strengths = (pair.style[name].up.norm(dim=0) * pair.style[name].down.norm(dim=1)).tolist()
        assert (strengths == sorted(strengths, reverse=True)) or basis == "factors"


def test_a_concept_of_another_model_makes_no_pair() -> None:
    deep = "middle_block.1.transformer_blocks.9.attn1.to_q"
    stranger = bare_lora({deep: placed_lora(FACTORS).layers[LINEAR]})
    with pytest.raises(ModelMismatchError, match=deep):
        make_pair(placed_lora(FACTORS), stranger, layout())
