"""Spoilt files, as strategies of hypothesis: headers that lie, bytes that changed, masks with other metadata."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from safetensors.torch import save as library_save

from duolora_core import open_gates
from duolora_core.merge.masks_file import save_masks
from robust.strangers import LITTLE_JSON, ODD_NAMES, dumped, healthy
from robust.verdicts import masks_pair

ABSURD_INTEGERS = st.sampled_from([-1, 0, 1, 3, 2**31, 2**63 - 1, 2**64, 10**30]) | st.integers(-5, 5000)


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
    liars = draw(st.sets(st.sampled_from(sorted(table)), min_size=1, max_size=2))
    entries: list[tuple[str, Any]] = []
    for key, entry in table.items():
        entries += draw(_lie(key, entry)) if key in liars else [(key, entry)]
    text = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries) + "}"
    if draw(st.sampled_from([*[False] * 15, True])):
        text = json.dumps(draw(LITTLE_JSON))
    raw = text.encode() + b" " * draw(st.integers(0, 8))
    length = len(raw) + draw(st.sampled_from([0] * 60 + [1, -1, 7, 2**20, 2**40, -(2**20)]))
    return packed(raw, data[: draw(st.sampled_from([len(data)] * 30 + [0, len(data) // 2, len(data) - 1]))], length)


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
        last = max(0, len(file) - 1)
        header = min(8 + int.from_bytes(whole[:8], "little"), last)
        at = draw(st.integers(header, last) | st.integers(0, header))
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
        about[draw(st.sampled_from(sorted(about)))] = draw(st.text(max_size=50) | LITTLE_JSON.map(dumped))
    else:
        floats = bytearray(data)
        floats[:4] = struct.pack("<f", draw(st.floats(width=32)))
        data = bytes(floats)
    return packed(json.dumps(table).encode(), data)
