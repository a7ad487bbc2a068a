"""Reading: every format gives the same LoRA, every key is accounted for, what cannot be merged is refused by name."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from duolora_core import DuoLoraError, LoraFile, lora_from_tensors, place, read_lora
from duolora_core.errors import LoraFileError, ModelMismatchError
from duolora_core.lora_file import trigger_words
from worlds import (
    FORMATS,
    TEXT_SHAPES,
    VARIED,
    Factors,
    dense,
    dense_low_rank,
    layout,
    pick,
    random_factors,
    relative,
    shapes_of,
    spell,
)

RANK = 4
SDXL_KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


@cache
def everything(style: str, with_mid: bool = False) -> dict[str, Factors]:
    """The same random LoRA for every format, over all the kinds of layer that the format can name."""
    form = FORMATS[style]
    factors = random_factors(shapes_of(pick(VARIED)) | TEXT_SHAPES, RANK, seed=5, with_mid=with_mid)
    named = pick(form.only)
    return {name: f for name, f in factors.items() if name in named or (form.text and name in TEXT_SHAPES)}


def rounded(factors: Factors, dtype: torch.dtype, scale: float) -> Factors:
    """The factors as a file in this dtype holds them, `up` divided by alpha / rank."""
    return Factors((factors.up / scale).to(dtype).float() * scale, factors.down.to(dtype).float())


def check_deltas(file: LoraFile, expected: dict[str, Factors]) -> None:
    """Reading adds no rounding of its own: the deltas are those of the stored numbers, to float32."""
    placed = place(file, layout())
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
    placed = place(lora_from_tensors(spell(factors, FORMATS[style], alpha=1.0), "locon"), layout())
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
    for layer, entry in from_memory.entries.items():
        assert torch.equal(entry.up, from_file.entries[layer].up)
        assert torch.equal(entry.down, from_file.entries[layer].down)
        assert entry.alpha == from_file.entries[layer].alpha == 8.0


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


def test_alpha_scales_by_alpha_over_rank() -> None:
    tensors = spell(everything("kohya_ldm"))
    plain = place(lora_from_tensors(tensors, "x"), layout())
    alphas = {key.replace("lora_up.weight", "alpha"): torch.tensor(3.0) for key in tensors if "lora_up" in key}
    scaled = place(lora_from_tensors({**tensors, **alphas}, "x"), layout())
    for name, low_rank in plain.layers.items():
        assert relative(scaled.layers[name].delta(), low_rank.delta() * 3 / RANK) < 1e-6


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
    placed = place(file, layout())
    assert {key for key, reason in placed.skipped.items() if reason} == {
        "lora_unet_nowhere.alpha",
        "lora_unet_nowhere.lora_mid.weight",
        "lora_te1_nowhere (bias offset)",
        "some.trainer.state",
        "lora_unet_input_blocks_99_0_op",
    }
    used = {name: entry for name, entry in file.entries.items() if name not in placed.skipped}
    assert len(used) == len(placed.layers) + len(placed.text)
    assert sum(2 + (e.mid is not None) + (e.alpha is not None) for e in used.values()) == len(tensors)


def pair_of(
    key: str, outputs: int = 16, inputs: int = 16, up: str = ".lora_up.weight", down: str = ".lora_down.weight"
) -> dict[str, Tensor]:
    return {key + up: torch.ones(outputs, 2), key + down: torch.ones(2, inputs)}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("DoRA", ["dora_scale", "lora_up.weight", "lora_down.weight"]),
        ("DoRA", ["lora_magnitude_vector.default.weight", "lora_A.default.weight", "lora_B.default.weight"]),
        ("LoHa", ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "alpha"]),
        ("LoKr", ["lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha"]),
        ("OFT", ["oft_blocks", "alpha"]),
        ("OFT", ["oft_diag", "rescale"]),
        ("GLoRA", ["a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"]),
        ("full weight difference", ["diff", "diff_b"]),
    ],
)
def test_other_adapters_are_refused_with_kind_and_layer_count(kind: str, keys: list[str]) -> None:
    layers = [f"{SDXL_KEY}{suffix}" for suffix in ("", "_2", "_3")]
    tensors = {f"{layer}.{key}": torch.ones(4, 4) for layer in layers for key in keys}
    with pytest.raises(LoraFileError) as caught:
        lora_from_tensors(tensors, "odd.safetensors")
    assert "odd.safetensors" in str(caught.value)
    assert f"{kind} in 3 layers" in str(caught.value)
    assert SDXL_KEY in str(caught.value)


CROSS = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
FOREIGN = [
    ("Stable Diffusion 1.5", pair_of(f"lora_unet_{CROSS}", 320, 768)),
    ("Stable Diffusion 1.5", pair_of("unet.mid_block.attentions.0.x.attn2.processor.to_v", 320, 768)),
    ("Stable Diffusion 2", pair_of(f"lora_unet_{CROSS}", 320, 1024)),
    ("refiner", pair_of(f"lora_unet_{CROSS}", 320, 1280)),
    ("Flux", pair_of("lora_unet_double_blocks_0_img_attn_proj")),
    ("Flux", pair_of("transformer.single_transformer_blocks.3.attn.to_q", up=".lora_B.weight", down=".lora_A.weight")),
    ("Stable Diffusion 3", pair_of("lora_unet_joint_blocks_0_context_block_attn_qkv")),
    ("Stable Diffusion 3", pair_of("transformer.transformer_blocks.0.attn.add_k_proj")),
    ("video", pair_of("diffusion_model.blocks.0.cross_attn.k")),
    ("PixArt", pair_of("transformer.transformer_blocks.0.attn1.to_q")),
    ("Cascade", pair_of("lora_prior_unet_down_blocks_0")),
]


@pytest.mark.parametrize(("family", "tensors"), FOREIGN, ids=[f"{i}_{family}" for i, (family, _) in enumerate(FOREIGN)])
def test_other_architectures_are_refused_by_name(family: str, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(LoraFileError, match=family):
        lora_from_tensors(tensors, "foreign.safetensors")


def test_sdxl_itself_is_no_foreign_architecture() -> None:
    file = lora_from_tensors(pair_of(f"lora_unet_{CROSS}", 640, 2048), "sdxl")
    assert file.entries[f"lora_unet_{CROSS}"].rank == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({".lora_down.weight": None}, ("up weight", "no down weight", SDXL_KEY)),
        ({".lora_up.weight": None}, ("down weight", "no up weight", SDXL_KEY)),
        ({".lora_up.weight": torch.ones(16, 3)}, (SDXL_KEY, "(16, 3)", "(2, 16)")),
        ({".lora_up.weight": torch.ones(16)}, (SDXL_KEY, "(16,)")),
        ({".lora_up.weight": torch.ones(16, 2, 3, 3)}, (SDXL_KEY, "(16, 2, 3, 3)")),
        ({".lora_up.weight": torch.ones(16, 0), ".lora_down.weight": torch.ones(0, 16)}, (SDXL_KEY, "(16, 0)")),
        ({".lora_mid.weight": torch.ones(3, 2, 3, 3)}, (SDXL_KEY, "(3, 2, 3, 3)")),
        ({".lora_mid.weight": torch.ones(2, 3, 3, 3)}, (SDXL_KEY, "(2, 3, 3, 3)")),
        ({".alpha": torch.ones(2)}, (SDXL_KEY, "alpha", "(2,)")),
        ({".alpha": torch.tensor(float("nan"))}, (SDXL_KEY, "alpha", "NaN")),
        ({".lora_up.weight": torch.full((16, 2), float("nan"))}, (SDXL_KEY, "lora_up", "NaN")),
        ({".lora_down.weight": torch.full((2, 16), float("inf"), dtype=torch.float16)}, (SDXL_KEY, "lora_down")),
        ({".diff_b": torch.full((16,), float("nan"))}, (SDXL_KEY, "diff_b", "NaN")),
        ({".lora.up.weight": torch.ones(16, 2)}, (SDXL_KEY, "twice")),
    ],
)
def test_a_damaged_layer_is_named(change: dict[str, Tensor | None], words: tuple[str, ...]) -> None:
    damaged = pair_of(SDXL_KEY) | {SDXL_KEY + suffix: tensor for suffix, tensor in change.items()}
    with pytest.raises(LoraFileError) as caught:
        lora_from_tensors({key: t for key, t in damaged.items() if t is not None}, "bad.safetensors")
    assert all(word in str(caught.value) for word in ("bad.safetensors", *words)), str(caught.value)


@pytest.mark.parametrize("tensors", [{}, {"model.weight": torch.ones(3)}, {f"{SDXL_KEY}.alpha": torch.tensor(1.0)}])
def test_a_file_without_lora_weights_is_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(LoraFileError, match=f"no LoRA weights \\(read {len(tensors)} keys\\)"):
        lora_from_tensors(tensors, "empty.safetensors")


def whole_file(folder: Path) -> bytes:
    save_file(pair_of(SDXL_KEY), folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("kept", [0, 7, 60, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole_file(tmp_path)[:kept])
    with pytest.raises(LoraFileError, match=r"cut\.safetensors is not a readable safetensors file"):
        read_lora(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.safetensors", b"<!DOCTYPE html><html><body>Log in to download this model</body></html>"),
        ("missing.safetensors", None),
        ("old.pt", b"PK"),
        ("old.ckpt", b"PK"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LoraFileError, match=name):
        read_lora(tmp_path / name)


def test_a_suffix_in_capitals_is_read(tmp_path: Path) -> None:
    (tmp_path / "A.SAFETENSORS").write_bytes(whole_file(tmp_path))
    assert set(read_lora(tmp_path / "A.SAFETENSORS").entries) == {SDXL_KEY}


def test_errors_are_one_family() -> None:
    assert issubclass(LoraFileError, DuoLoraError) and issubclass(ModelMismatchError, DuoLoraError)


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
        ({}, []),
    ],
)
def test_trigger_words_are_the_phrase_or_the_commonest_tags(metadata: dict[str, str], words: list[str]) -> None:
    assert trigger_words(metadata) == words


def test_metadata_is_kept(tmp_path: Path) -> None:
    save_file(pair_of(SDXL_KEY), tmp_path / "m.safetensors", metadata={"ss_output_name": "dog"})
    assert read_lora(tmp_path / "m.safetensors").metadata == {"ss_output_name": "dog"}
