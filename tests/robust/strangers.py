"""Files as a stranger may write them, as strategies of hypothesis: lying headers, odd contents, spoilt bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save as library_save
from torch import Tensor

from duolora_core import open_gates
from duolora_core.masks_file import save_masks
from robust.verdicts import LAYERS, masks_pair
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
ABSURD_INTEGERS = st.sampled_from([-1, 0, 1, 3, 2**31, 2**63 - 1, 2**64, 10**30]) | st.integers(-5, 5000)


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
    for key in draw(st.lists(st.sampled_from([*KEYS, *TEXT_KEYS]), min_size=1, max_size=4, unique=True)):
        rank = draw(st.sampled_from([4, 1, 2, 0, 70, 500]))
        parts = _layer(key, rank, torch.Generator().manual_seed(draw(st.integers(0, 99))))
        fill = FILLS[draw(st.sampled_from([*["healthy"] * 6, *FILLS]))]
        dtype = draw(st.sampled_from([*[torch.float32] * 4, torch.float16, *DTYPES]))
        parts = {name: fill(tensor).to(dtype) for name, tensor in parts.items()}
        if draw(st.booleans()):
            number = draw(st.sampled_from(NUMBERS) | st.floats(-100, 100))
            parts[f"{key}.alpha"] = torch.tensor(number, dtype=draw(st.sampled_from([torch.float32, torch.float64])))
        if draw(st.integers(0, 3)) == 0:
            _spoil(draw, key, parts)
        tensors |= parts
    for name in draw(st.lists(st.sampled_from(ODD_NAMES[:4]), max_size=2)):
        tensors[name] = torch.zeros(draw(st.integers(0, 3)), 2)
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
    return st.dictionaries(names, st.text(max_size=50) | LITTLE_JSON.map(_dumped) | deep, max_size=3)


def _dumped(value: Any) -> str:
    return json.dumps(value)


def packed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A file with this header; `length` is what it says the header's length is."""
    return struct.pack("<Q", len(header) if length is None else length % 2**64) + header + data


def unpacked(file: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, data) of a well-formed file."""
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length]), file[8 + length :]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Files whose header lies about what follows, or is no header."""
    table, data = unpacked(library_save(healthy()))
    entries: list[tuple[str, Any]] = list(table.items())
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.integers(0, len(entries) - 1))
        entries[where : where + 1] = draw(_lie(*entries[where]))
        if not entries:
            break
    text = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries) + "}"
    if draw(st.integers(0, 9)) == 0:
        text = json.dumps(draw(LITTLE_JSON))
    raw = text.encode() + b" " * draw(st.integers(0, 8))
    length = len(raw) + draw(st.sampled_from([0] * 12 + [1, -1, 7, 2**20, 2**40, -(2**20)]))
    return packed(raw, data[: draw(st.sampled_from([len(data)] * 6 + [0, len(data) // 2, len(data) - 1]))], length)


def _lie(key: str, entry: dict[str, Any]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """What stands in the header in place of one entry."""

    def changed(**fields: Any) -> list[tuple[str, Any]]:
        return [(key, {**entry, **fields})]

    begin, end = entry["data_offsets"]
    return st.one_of(
        st.just([]),
        st.just([(key, entry), (key, entry)]),
        st.sampled_from(ODD_NAMES).map(lambda name: [(name, entry)]),
        st.sampled_from(["F64", "F16", "BOOL", "C64", "F8_E8M0", "f32", "", "__import__('os')"]).map(
            lambda dtype: changed(dtype=dtype)
        ),
        st.lists(ABSURD_INTEGERS, max_size=10).map(lambda shape: changed(shape=shape)),
        st.lists(ABSURD_INTEGERS, max_size=3).map(lambda offsets: changed(data_offsets=offsets)),
        st.integers(-8, 8).map(lambda by: changed(data_offsets=[begin + by, end + by])),
        st.integers(-8, 8).map(lambda by: changed(data_offsets=[begin, end + by])),
        st.sampled_from(["dtype", "shape", "data_offsets"]).flatmap(
            lambda field: LITTLE_JSON.map(lambda value: changed(**{field: value}))
        ),
        st.sampled_from(["dtype", "shape", "data_offsets"]).map(
            lambda gone: [(key, {field: value for field, value in entry.items() if field != gone})]
        ),
        LITTLE_JSON.map(lambda value: [(key, value)]),
        LITTLE_JSON.map(lambda value: [("__metadata__", value), (key, entry)]),
        st.text(max_size=300).map(lambda name: [(name, entry)]),
    )


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    """A good file with some of its bytes turned, gone, doubled or new."""
    file = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        header = 8 + int.from_bytes(whole[:8], "little")
        at = draw(st.integers(0, min(header, len(file) - 1)) | st.integers(0, len(file) - 1)) if file else 0
        kind = draw(st.sampled_from(["turn", "set", "cut", "drop", "double", "insert"]))
        if kind == "turn" and file:
            file[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and file:
            file[at] = draw(st.sampled_from([0, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x7D, 0x2C]))
        elif kind == "cut":
            del file[at:]
        elif kind == "drop":
            del file[at : at + draw(st.integers(1, 16))]
        elif kind == "double":
            file[at:at] = file[at : at + draw(st.integers(1, 64))]
        else:
            file[at:at] = draw(st.binary(min_size=1, max_size=16))
    return bytes(file)


@cache
def good_lora() -> bytes:
    return library_save(healthy(), {"ss_tag_frequency": '{"a": {"dog": 3}}'})


@cache
def good_masks() -> bytes:
    pair = masks_pair()
    recipe = {
        "inputs": {role: {"prompt": "a dog", "strength": 1.0} for role in ("content", "style")},
        "combined_prompt": "a dog in ink",
        "config": {"layer_prior": "resolution", "steps": 100},
    }
    with TemporaryDirectory() as folder:
        return save_masks(Path(folder) / "m.masks.safetensors", open_gates(pair), pair, recipe).read_bytes()


@st.composite
def masks(draw: st.DrawFn) -> bytes:
    """Masks files with other metadata, other gates, or spoilt bytes."""
    if draw(st.booleans()):
        return draw(spoilt(good_masks()))
    table, data = unpacked(good_masks())
    about = table["__metadata__"]
    if draw(st.booleans()):
        which = draw(st.sampled_from(["duolora_masks", "duolora_recipe"]))
        inner = json.loads(about[which])
        inner[draw(st.sampled_from(sorted(inner)))] = draw(LITTLE_JSON | st.sampled_from(["x" * 100_000, 10**100]))
        about[which] = json.dumps(inner)
    elif draw(st.booleans()):
        about[draw(st.sampled_from(sorted(about)))] = draw(st.text(max_size=50) | LITTLE_JSON.map(_dumped))
    else:
        floats = bytearray(data)
        floats[:4] = struct.pack("<f", draw(st.floats(width=32)))
        data = bytes(floats)
    return packed(json.dumps(table).encode(), data)


@st.composite
def pictures(draw: st.DrawFn) -> Tensor:
    """IMAGE tensors of any shape, dtype and value."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 64]), max_size=5))
    if draw(st.booleans()):
        sizes = [draw(st.integers(0, 2)), draw(st.integers(0, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 5))]
    dtype = draw(st.sampled_from([torch.float32] * 3 + [torch.float16, torch.uint8, torch.int64, torch.bool]))
    value = draw(st.sampled_from([0.5] * 4 + [0.0, -3.0, 1e30, math.nan, math.inf]))
    return torch.full(sizes, value if dtype.is_floating_point else 1).to(dtype)
