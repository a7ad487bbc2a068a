"""Files as a stranger may write them, as strategies of hypothesis: odd layers, odd metadata, odd pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save as library_save
from torch import Tensor

from robust.verdicts import LAYERS
from tiny import TEXT_SHAPES, layout

KEYS = tuple("lora_unet_" + name.replace(".", "_") for name in LAYERS)
TEXT_KEYS = tuple("lora_" + name.replace(".", "_") for name in TEXT_SHAPES)
SHAPES = {key: layout().layers[name].shape for key, name in zip(KEYS, LAYERS, strict=True)} | {
    key: TEXT_SHAPES[name] for key, name in zip(TEXT_KEYS, TEXT_SHAPES, strict=True)
}
NUMBERS = (0.0, 1.0, -1.0, 4.0, 1e-30, 1e4, 1e30, -1e38, 1e300, math.nan, math.inf, -math.inf)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8, torch.int64)
FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "healthy": lambda t: t,
    "zero": torch.zeros_like,
    "equal": torch.ones_like,
    "large": lambda t: t * 1e4,
    "absurd": lambda t: t * 1e25,
    "tiny": lambda t: t * 1e-38,
    "one NaN": lambda t: t.flatten().index_fill(0, torch.tensor([0]), math.nan).view_as(t) if t.numel() else t,
    "infinite": lambda t: torch.full_like(t, math.inf),
}
ODD_NAMES = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight",
    "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
    "../../../etc/passwd",
    "\x1b[2J\x1b[31mred",
    "turned \u202earound",
    "a" * 300,
    "",
    "__metadata__",
    "emb_params",
)
SUFFIXES = (
    "alpha",
    "lora_mid.weight",
    "diff",
    "diff_b",
    "w_norm",
    "dora_scale",
    "hada_w1_a",
    "lokr_w1",
    "lora_A.weight",
    "lora.up.weight",
    "on_input",
)
LITTLE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def healthy(seed: int = 0) -> dict[str, Tensor]:
    """A LoRA with nothing wrong in it."""
    generator = torch.Generator().manual_seed(seed)
    return {name: t for key in KEYS[:3] for name, t in _layer(key, 2, generator).items()}


def _layer(key: str, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    outputs, *inputs = SHAPES[key]
    ones = [1] * (len(inputs) - 1)
    return {
        f"{key}.lora_up.weight": torch.randn(outputs, rank, *ones, generator=generator) / 8,
        f"{key}.lora_down.weight": torch.randn(rank, *inputs, generator=generator) / 8,
    }


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Well-formed files with odd layers: ranks, scales, values, dtypes, shapes and parts that do not belong."""
    tensors: dict[str, Tensor] = {}
    for key in draw(st.lists(st.sampled_from([*KEYS, *KEYS, *TEXT_KEYS]), min_size=1, max_size=4, unique=True)):
        rank = draw(st.sampled_from([4, 1, 2, 4, 8, 70, 500, 0]))
        parts = _layer(key, rank, torch.Generator().manual_seed(draw(st.integers(0, 99))))
        fill = FILLS[draw(st.sampled_from([*["healthy"] * 6, *FILLS]))]
        dtype = draw(st.sampled_from([*[torch.float32] * 8, *[torch.float16, torch.bfloat16] * 3, *DTYPES]))
        parts = {name: fill(tensor).to(dtype) for name, tensor in parts.items()}
        if draw(st.booleans()):
            number = draw(st.sampled_from(NUMBERS) | st.floats(-100, 100))
            parts[f"{key}.alpha"] = torch.tensor(number, dtype=draw(st.sampled_from([torch.float32, torch.float64])))
        if draw(st.sampled_from([False, False, False, True])):
            _spoil(draw, key, parts)
        tensors |= parts
    if draw(st.sampled_from([*[False] * 8, True])):
        tensors[draw(st.sampled_from(ODD_NAMES[:4]))] = torch.zeros(draw(st.integers(0, 3)), 2)
    return library_save(tensors, draw(metadata()))


def _spoil(draw: st.DrawFn, key: str, parts: dict[str, Tensor]) -> None:
    """Takes away, turns, cuts, adds or spells again one part of a layer."""
    name = draw(st.sampled_from(sorted(parts)))
    kind = draw(st.sampled_from(["gone", "turned", "flat", "deep", "cut", "more", "core", "again"]))
    tensor = parts[name]
    if kind == "gone":
        del parts[name]
    elif kind == "turned":
        parts[name] = tensor.flatten().reshape(tensor.shape[::-1]).contiguous()
    elif kind == "flat":
        parts[name] = tensor.flatten()
    elif kind == "deep":
        parts[name] = tensor.reshape(*tensor.shape, *[1] * draw(st.integers(1, 5)))
    elif kind == "cut" and tensor.ndim:
        parts[name] = tensor[: max(0, tensor.shape[0] - 1)].clone()
    elif kind == "more":
        sizes = draw(st.lists(st.integers(0, 5), max_size=4))
        parts[f"{key}.{draw(st.sampled_from(SUFFIXES))}"] = torch.ones(sizes)
    elif kind == "core":
        parts[f"{key}.lora_mid.weight"] = torch.ones(
            draw(st.sampled_from([(4, 4, 3, 3), (4, 4, 1, 1), (900, 4, 3, 3)]))
        )
    elif kind == "again" and "lora_up" in name:
        parts[name.replace(".lora_up.weight", ".lora_B.weight")] = tensor.clone()


def metadata() -> st.SearchStrategy[dict[str, str]]:
    """Texts of any kind where trainers write, among them broken and deep JSON."""
    names = st.sampled_from(["modelspec.trigger_phrase", "ss_tag_frequency", "duolora_recipe", "ss_v2"])
    deep = st.sampled_from(
        ["[" * 100_000, '{"a":' * 5000, "x" * 100_000, '{"a": {"b": 1e999}}', '{"a": {"b": ' + "9" * 5000]
    )
    return st.dictionaries(names, st.text(max_size=50) | LITTLE_JSON.map(dumped) | deep, max_size=3)


def dumped(value: Any) -> str:
    return json.dumps(value)


@st.composite
def pictures(draw: st.DrawFn) -> Tensor:
    """IMAGE tensors of any shape, dtype and value."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 64]), max_size=5))
    if draw(st.booleans()):
        sizes = [draw(st.integers(0, 2)), draw(st.integers(0, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 5))]
    dtype = draw(st.sampled_from([torch.float32] * 3 + [torch.float16, torch.uint8, torch.int64, torch.bool]))
    value = draw(st.sampled_from([0.5] * 4 + [0.0, -3.0, 1e30, math.nan, math.inf]))
    return torch.full(sizes, value if dtype.is_floating_point else 1).to(dtype)
