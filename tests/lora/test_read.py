"""Reading: every format gives the same LoRA, and every key is accounted for."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duolora_core import LoraFile, lora_from_tensors, match_to_model, read_lora
from duolora_core.lora.adapters import PlainLora
from duolora_core.lora.trigger_words import trigger_words
from factors import Factors, dense, random_factors, shapes_of
from one_layer import SDXL_KEY, pair_of
from spellings import FORMATS, spell
from tiny import TEXT_SHAPES, VARIED, layout, pick
from worlds import dense_low_rank, relative

RANK = 4


@cache
def everything(style: str, with_mid: bool = False) -> dict[str, Factors]:
    """The same random LoRA for every format, over all the kinds of layer that the format can name."""
    form = FORMATS[style]
    factors = random_factors(shapes_of(pick(VARIED)) | TEXT_SHAPES, RANK, seed=5, with_mid=with_mid)
    named = pick(form.only)
    return {name: f for name, f in factors.items() if name in named or (form.text and name in TEXT_SHAPES)}


def plain(file: LoraFile) -> dict[str, PlainLora]:
    """The entries of a file that holds nothing but plain LoRA."""
    found = {layer: entry for layer, entry in file.entries.items() if isinstance(entry, PlainLora)}
    assert found.keys() == file.entries.keys()
    return found


def rounded(factors: Factors, dtype: torch.dtype, scale: float) -> Factors:
    """The factors as a file in this dtype holds them, `up` divided by alpha / rank."""
    return Factors((factors.up / scale).to(dtype).float() * scale, factors.down.to(dtype).float())


def check_deltas(file: LoraFile, expected: dict[str, Factors]) -> None:
    """Reading adds no rounding of its own: the deltas are those of the stored numbers, to float32."""
    placed = match_to_model(file, layout())
    found = {**placed.layers, **placed.text}
    assert placed.skipped == {}
    assert len(found) == len(expected)
    for name, factors in expected.items():
        key = f"lora_{name.replace('.', '_')}" if name in TEXT_SHAPES else name
        assert relative(dense_low_rank(found[key]), dense(factors).flatten(1)) < 2e-6, name


CASES = [(style, alpha) for style, form in FORMATS.items() for alpha in ((None, 3.0) if form.alpha else (None,))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(("style", "alpha"), CASES, ids=[f"{style}-alpha_{alpha}" for style, alpha in CASES])
def test_every_format_reads_to_the_same_deltas(
    style: str, alpha: float | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = spell(everything(style), FORMATS[style], alpha, dtype)
    assert any(key.endswith("alpha") for key in tensors) == (alpha is not None)
    save_file(tensors, tmp_path / "lora.safetensors")
    scale = 1.0 if alpha is None else alpha / RANK
    stored = {name: rounded(f, dtype, scale) for name, f in everything(style).items()}
    check_deltas(read_lora(tmp_path / "lora.safetensors"), stored)


@pytest.mark.parametrize("style", [style for style, form in FORMATS.items() if form.mid])
def test_a_tucker_core_is_the_convolution_in_between(style: str) -> None:
    """LoCon with mid: up ∘ mid ∘ down as three convolutions equals one with the placed delta, in float64."""
    factors = everything(style, with_mid=True)
    placed = match_to_model(lora_from_tensors(spell(factors, FORMATS[style], alpha=1.0), "locon"), layout())
    cores = [(name, f, f.mid) for name, f in factors.items() if f.mid is not None]
    assert len(cores) >= 6
    for name, f, mid in cores:
        x = torch.randn(1, f.down.shape[1], 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        chain = x
        for kernel in (f.down, mid, f.up):
            chain = torch.nn.functional.conv2d(chain, kernel.double(), padding=kernel.shape[-1] // 2)
        whole = dense_low_rank(placed.layers[name]).reshape(layout().layers[name].shape)
        assert relative(torch.nn.functional.conv2d(x, whole, padding=1), chain) < 2e-6, name


def test_lora_model_dictionary_reads_as_its_file(tmp_path: Path) -> None:
    tensors = spell(everything("comfy"), FORMATS["comfy"], alpha=8.0)
    save_file(tensors, tmp_path / "a.safetensors")
    from_file, from_memory = read_lora(tmp_path / "a.safetensors"), lora_from_tensors(tensors, "LORA_MODEL")
    assert from_file.entries.keys() == from_memory.entries.keys()
    ours, theirs = plain(from_memory), plain(from_file)
    for layer, entry in ours.items():
        assert torch.equal(entry.up, theirs[layer].up)
        assert torch.equal(entry.down, theirs[layer].down)
        assert entry.alpha == theirs[layer].alpha == 8.0


def test_sha256_tells_loras_apart(tmp_path: Path) -> None:
    """A file's is that of its bytes; a dictionary's follows names, shapes, types and values, not their order."""
    tensors = pair_of(SDXL_KEY)
    save_file(tensors, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    assert read_lora(tmp_path / "a.safetensors").sha256 == hashlib.sha256(whole).hexdigest()
    same = dict(reversed([(key, tensor.clone()) for key, tensor in tensors.items()]))
    others = [
        pair_of(SDXL_KEY + "_2"),
        {key: 2 * tensor for key, tensor in tensors.items()},
        {key: tensor.half() for key, tensor in tensors.items()},
        {key: tensor[..., None, None] for key, tensor in tensors.items()},
        {**tensors, f"{SDXL_KEY}.alpha": torch.tensor(1.0)},
    ]
    digests = [lora_from_tensors(t, "x").sha256 for t in (tensors, same, *others)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 1 + len(others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_largest_finite_values_are_read(dtype: torch.dtype) -> None:
    """They are no infinity, though their sum in their own type would be one."""
    largest = {key: torch.full_like(t, torch.finfo(dtype).max, dtype=dtype) for key, t in pair_of(SDXL_KEY).items()}
    assert bool((plain(lora_from_tensors(largest, "x"))[SDXL_KEY].up == torch.finfo(dtype).max).all())


def test_every_key_is_used_or_named_as_skipped() -> None:
    tensors = spell(everything("kohya_ldm", with_mid=True), alpha=1.0)
    odd = {
        "lora_unet_nowhere.alpha": torch.tensor(1.0),
        "lora_unet_nowhere.lora_mid.weight": torch.ones(2, 2, 3, 3),
        "lora_te1_nowhere.diff_b": torch.ones(3),
        "some.trainer.state": torch.ones(1),
        **pair_of("lora_unet_input_blocks_99_0_op"),
    }
    file = lora_from_tensors({**tensors, **odd}, "x")
    placed = match_to_model(file, layout())
    assert {key for key, reason in placed.skipped.items() if reason} == {
        "lora_unet_nowhere.alpha",
        "lora_unet_nowhere.lora_mid.weight",
        "lora_te1_nowhere (bias offset)",
        "some.trainer.state",
        "lora_unet_input_blocks_99_0_op",
    }
    used = {name: entry for name, entry in plain(file).items() if name not in placed.skipped}
    assert len(used) == len(placed.layers) + len(placed.text)
    assert sum(2 + (e.mid is not None) + (e.alpha is not None) for e in used.values()) == len(tensors)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": " a sks dog ", "ss_tag_frequency": '{"x": {"y": 1}}'}, ["a sks dog"]),
        (
            {"ss_tag_frequency": json.dumps({"5_a": {"dog": 3, "red ": 9}, "5_b": {"dog": 8, "tree": 1, "sky": 2}})},
            ["dog", "red", "sky"],
        ),
        ({"ss_tag_frequency": "not json"}, []),
        ({"ss_tag_frequency": "[1, 2]"}, []),
        ({"ss_tag_frequency": '{"a": {"dog": "many"}}'}, []),
        ({"ss_tag_frequency": '{"a": {"dog": 1e999}}'}, []),
        ({"ss_tag_frequency": "[" * 100_000}, []),
        ({"modelspec.trigger_phrase": "a\x1b[31m dog"}, ["a\ufffd[31m dog"]),
        ({"modelspec.trigger_phrase": "x" * 5000}, ["x" * 299 + "…"]),
        ({"ss_tag_frequency": json.dumps({"a": {"Embedding:../secret": 9, "dog": 1}})}, ["dog"]),
        ({}, []),
    ],
)
def test_trigger_words_are_the_phrase_or_the_commonest_tags(metadata: dict[str, str], words: list[str]) -> None:
    assert trigger_words(metadata) == words
