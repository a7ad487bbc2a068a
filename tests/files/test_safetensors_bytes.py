"""The files' bytes: what the library itself would write, in every process the same."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from duolora_core.errors import DuoLoraError
from duolora_core.files.safetensors_bytes import safetensors_chunks

ROOT = Path(__file__).parent.parent.parent
TENSORS: dict[str, Tensor] = {
    "b.half": torch.linspace(-3, 3, 15).reshape(3, 5).half(),
    "a.brain": torch.linspace(-3, 3, 7).bfloat16(),
    "c.scalar": torch.tensor(257.0),
    "a.double": torch.linspace(0, 1, 3, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "whole": torch.arange(-2, 2),
    "none": torch.zeros(0, 4),
    "ünïcode": torch.ones(1),
}


def written(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    return b"".join(bytes(chunk) for chunk in safetensors_chunks(tensors, metadata))


@pytest.mark.parametrize("metadata", [{}, {"recipe": '{"name": "Hündchen"}'}], ids=["plain", "with metadata"])
def test_it_is_what_the_library_writes(metadata: dict[str, str]) -> None:
    assert written(TENSORS, metadata) == safetensors.torch.save(TENSORS, metadata or None)


def test_views_are_written_as_they_look() -> None:
    square = torch.arange(12.0).reshape(3, 4)
    views = {"transposed": square.T, "strided": square[:, ::2], "with gradient": square.clone().requires_grad_()}
    back = safetensors.torch.load(written(views, {}))
    assert all(torch.equal(back[name], view) for name, view in views.items())


def test_the_order_of_what_is_given_does_not_matter_in_any_process() -> None:
    """The library's own writer fails this: it orders metadata by hashes that differ by process."""
    metadata = {f"key{i}": str(i) for i in range(20)}
    one = written(TENSORS, metadata)
    other = written(dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert one == other
    script = (
        "import hashlib, torch; from duolora_core.files.safetensors_bytes import safetensors_chunks as chunks\n"
        "metadata = {f'key{i}': str(i) for i in range(20)}\n"
        "print(hashlib.sha256(b''.join(chunks({'x': torch.ones(3)}, metadata))).hexdigest())"
    )
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == hashlib.sha256(written({"x": torch.ones(3)}, metadata)).hexdigest()


def test_half_a_surrogate_pair_is_no_reason_to_lose_a_merge() -> None:
    """A prompt out of a JSON file may hold one."""
    data = written({"x": torch.ones(1)}, {"prompt": "a \ud83d dog"})
    assert torch.equal(safetensors.torch.load(data)["x"], torch.ones(1))


@pytest.mark.parametrize("tensors", [{"x": torch.ones(1, dtype=torch.complex64)}, {"__metadata__": torch.ones(1)}])
def test_what_the_format_has_no_place_for_is_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(DuoLoraError, match=next(iter(tensors))):
        safetensors_chunks(tensors, {})
