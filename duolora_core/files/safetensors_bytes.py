"""The safetensors format, written out: equal tensors and metadata give equal bytes, and nothing is copied whole.

The library's own writer puts metadata in another order in every process, and holds a second copy of all tensors or
makes a temporary file of its own. The format: 8 bytes with the header's length, little-endian; the header, JSON padded
with spaces to a multiple of 8; the tensors' bytes (github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import DuoLoraError

_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}
"""In the order in which the library lets them stand, so that every tensor is aligned."""
_METADATA = "__metadata__"


def safetensors_chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The file piece by piece. Tensors stand in the library's own order: by dtype, and then by name.

    Raises:
        DuoLoraError: a tensor's dtype or name has no place in the format; before anything is given out.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or name == _METADATA:
            raise DuoLoraError(f"Tensor {name} of {tensor.dtype} cannot be written to a safetensors file.")
    order = list(_DTYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        dtype, shape = _DTYPES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    # Half a surrogate pair, which a prompt may hold, has no bytes in UTF-8.
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return _chunks(struct.pack("<Q", len(text)) + text, [tensors[name] for name in names])


def _chunks(header: bytes, tensors: list[Tensor]) -> Iterator[bytes | memoryview]:
    yield header
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous().reshape(-1)
        yield values.view(torch.uint8).numpy().data
