"""Reading files: the same tensors as the format's own library, hashed in the same pass, and ours afterwards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from duolora_core.errors import LoraFileError
from duolora_core.files.sanitize import json_of, listed, sanitize
from duolora_core.files.tensor_file import file_sha256, read_tensors
from duolora_core.files.tensor_header import Header

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)


def anything(name: str, header: Header) -> None:
    """Refuses nothing."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): torch.randn(3, 5, generator=generator).mul(9).to(dtype) for dtype in DTYPES}
    tensors |= {"none": torch.ones(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "a.safetensors", {"title": "Hündchen"})
    return tmp_path / "a.safetensors"


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_tensors_are_those_of_the_formats_own_library(path: Path) -> None:
    held = read_tensors(path, anything)
    expected = load_file(path)
    assert held.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (held.tensors[key].dtype, held.tensors[key].shape) == (tensor.dtype, tensor.shape)
        assert bits(held.tensors[key]) == bits(tensor)
    assert held.metadata == {"title": "Hündchen"}
    assert held.sha256 == file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_read_is_ours_whatever_becomes_of_the_file(path: Path) -> None:
    """A mapped file that is cut ends the process when a tensor is next looked at."""
    held, expected = read_tensors(path, anything), {key: bits(tensor) for key, tensor in load_file(path).items()}
    os.truncate(path, 10)
    assert {key: bits(tensor) for key, tensor in held.tensors.items()} == expected


def test_a_refusal_by_the_header_comes_before_any_tensor_is_read(tmp_path: Path) -> None:
    """A checkpoint of many GB among the LoRAs is not read to its end. Here the data is a hole of 3 GB."""
    size = 3 << 30
    header = f'{{"a":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    path = tmp_path / "large.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)

    def refuse(name: str, found: Header) -> None:
        raise LoraFileError(f"{name} has {list(found.entries)} of {found.size} bytes")

    with pytest.raises(LoraFileError, match=rf"large\.safetensors has \['a'\] of {size} bytes"):
        read_tensors(path, refuse)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Ä猫👍", "plain Ä猫👍"),
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\tb\u3000c\nd", "a b c d"),
        ("a\u202eb\ud800", "a\ufffdb\ufffd"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_text_is_made_printable(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_lines_are_kept_where_they_mean_something() -> None:
    assert sanitize("a\nb\rc", keep_lines=True) == "a\nb c"


def test_lists_end_with_how_many_more_there_are() -> None:
    assert listed("abc", 3) == ["a", "b", "c"]
    assert listed("abcd", 3) == ["a", "b", "c", "… and 1 more"]


def test_json_too_deep_is_a_value_error_as_any_other() -> None:
    assert json_of('{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, "{", ""):
        with pytest.raises(ValueError, match=r".+"):
            json_of(text)
