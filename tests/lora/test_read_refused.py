"""Refusing: other adapters, other models, damaged layers and broken files each raise an error that names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from duolora_core import lora_from_tensors, read_lora
from duolora_core.errors import LoraFileError
from duolora_core.lora.adapters import PlainLora
from one_layer import SDXL_KEY, pair_of


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("an OFT of PEFT or of early trainers", ["oft_R.default.weight"]),
        ("an OFT of PEFT or of early trainers", ["oft_diag"]),
        ("an OFT of PEFT or of early trainers", ["boft_R.default", "boft_s.default"]),
        ("VeRA", ["vera_lambda_b.default", "vera_lambda_d.default"]),
        ("a control LoRA", ["reshape_weight", "lora_up.weight", "lora_down.weight"]),
    ],
)
def test_other_adapters_are_refused_with_kind_and_layer_count(kind: str, keys: list[str]) -> None:
    layers = [f"{SDXL_KEY}{suffix}" for suffix in ("", "_2", "_3")]
    tensors = {f"{layer}.{key}": torch.ones(4, 4) for layer in layers for key in keys}
    with pytest.raises(LoraFileError) as caught:
        lora_from_tensors(tensors, "odd.safetensors")
    assert "odd.safetensors" in str(caught.value)
    assert kind in str(caught.value)
    assert "in 3 layers" in str(caught.value)
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
    ("Wan", pair_of("diffusion_model.blocks.0.cross_attn.k")),
    (
        "Flux",
        pair_of("diffusion_model.double_blocks.0.img_attn.qkv")
        | {"diffusion_model.double_blocks.0.img_attn.qkv.lora_B.bias": torch.ones(16)},
    ),
    ("HunyuanVideo", pair_of("diffusion_model.double_blocks.0.img_attn_qkv")),
    ("Qwen-Image", pair_of("transformer.transformer_blocks.0.img_mlp.net.2")),
    ("Anima", pair_of("lora_unet_blocks_0_self_attn_q_proj")),
    ("Z-Image", pair_of("diffusion_model.layers.3.attention.to_q")),
    ("PixArt", pair_of("transformer.transformer_blocks.0.attn1.to_q")),
    ("Cascade", pair_of("lora_prior_unet_down_blocks_0")),
]


@pytest.mark.parametrize(("family", "tensors"), FOREIGN, ids=[f"{i}_{family}" for i, (family, _) in enumerate(FOREIGN)])
def test_other_architectures_are_refused_by_name(family: str, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(LoraFileError, match=family):
        lora_from_tensors(tensors, "foreign.safetensors")


def test_sdxl_itself_is_no_foreign_architecture() -> None:
    file = lora_from_tensors(pair_of(f"lora_unet_{CROSS}", 640, 2048), "sdxl")
    assert isinstance(file.entries[f"lora_unet_{CROSS}"], PlainLora)


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
        ({".lora_up.weight": torch.tensor([[float("inf"), -float("inf")]] * 16)}, (SDXL_KEY, "lora_up", "NaN")),
        ({".lora_up.weight": torch.full((16, 2), 1e39, dtype=torch.float64)}, (SDXL_KEY, "lora_up", "infinity")),
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


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.diffusion_model.out.2.weight", "first_stage_model.x"], "a checkpoint: load it with Load Checkpoint"),
        (["clip_l", "clip_g"], "an embedding: put it into the embeddings folder"),
        (["lora_controlnet", "time_embed.0.up", "time_embed.0.down"], "a control LoRA: load it with Load ControlNet"),
    ],
)
def test_what_is_no_lora_is_called_what_it_is(keys: list[str], words: str, tmp_path: Path) -> None:
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "odd.safetensors")
    with pytest.raises(LoraFileError, match=words):
        read_lora(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({".hada_w1_a": torch.ones(16, 2)}, "a LoRA and a LoHa at once"),
        ({".diff": torch.ones(16, 16)}, "a LoRA and a full difference at once"),
        ({".dora_scale": torch.ones(16, 1), ".magnitude": torch.ones(16)}, "dora_scale and magnitude at once"),
    ],
)
def test_a_layer_with_two_adapters_is_refused(parts: dict[str, Tensor], words: str) -> None:
    tensors = pair_of(SDXL_KEY) | {SDXL_KEY + part: tensor for part, tensor in parts.items()}
    with pytest.raises(LoraFileError, match=words):
        lora_from_tensors(tensors, "odd.safetensors")
