"""How the files of the corpus are made, and what other programs do to them meanwhile."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as library_save
from torch import Tensor

from duolora_core import kohya_state_dict, make_merged, make_pair, open_gates
from duolora_core.files.tensor_header import MOST_HEADER_BYTES
from duolora_core.lora.metadata import FileInfo, metadata
from duolora_core.lora.save import write_safetensors
from factors import random_factors, shapes_of
from robust.spoiling import packed
from robust.strangers import KEYS, healthy
from robust.verdicts import LAYERS
from tiny import layout
from worlds import placed_lora


def written(content: bytes | Callable[[], bytes], name: str = "odd.safetensors") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return make


def saved(change: Mapping[str, Tensor | None], **about: str) -> bytes:
    tensors: dict[str, Tensor | None] = {**healthy(), **change}
    return library_save({key: tensor for key, tensor in tensors.items() if tensor is not None}, about)


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def pickled(how: str, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        state = {"lora_unet_x.lora_up.weight": torch.ones(2, 2), "evil": Evil(folder / "unpickled")}
        path = folder / name
        if how == "plain":
            path.write_bytes(pickle.dumps(state))
        elif how == "text":
            path.write_bytes(pickle.dumps(state, protocol=0))
        else:
            held = io.BytesIO()
            torch.save(state, held, _use_new_zipfile_serialization=how == "zip")
            path.write_bytes(held.getvalue())
        return path

    return make


def sparse(size: int, header: bytes = b"{}") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = written(packed(header, b""))(folder)
        os.truncate(path, size)
        return path

    return make


def many(count: int) -> bytes:
    """A header of so many empty tensors that all end where they begin."""
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return packed(("{" + ",".join(f'"{i:x}":{entry}' for i in range(count)) + "}").encode(), b"")


def bomb(start: str, middle: str, end: str) -> Callable[[], bytes]:
    """A header as long as is read at most, of one thing again and again."""
    return lambda: packed((start + middle * ((MOST_HEADER_BYTES - 200) // len(middle.encode())) + end).encode(), b"")


def merged(folder: Path) -> Path:
    """A file of our own, fed back in."""
    content, style = (placed_lora(random_factors(shapes_of(LAYERS), 3, seed)) for seed in (5, 6))
    pair = make_pair(content, style, layout())
    folded = make_merged(pair, open_gates(pair), {"steps": 1}).fold()
    values = metadata(folded, FileInfo("ours", "a dog"), {"steps": 1})
    return write_safetensors(folder / "merged_00001.safetensors", kohya_state_dict(folded), values)


def linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        written(saved({}), "target.bin")(folder)
        path = folder / "odd.safetensors"
        path.symlink_to(folder / target)
        return path

    return make


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "odd.safetensors")
    return folder / "odd.safetensors"


def folder_instead(folder: Path) -> Path:
    (folder / "odd.safetensors").mkdir()
    return folder / "odd.safetensors"


def misaligned() -> bytes:
    """A byte before the weights, so that no float begins at a multiple of its size."""
    return packed(*_with_first(b"\x01"))


def _with_first(first: bytes) -> tuple[bytes, bytes]:
    whole = library_save(healthy())
    length = int.from_bytes(whole[:8], "little")
    table: dict[str, Any] = json.loads(whole[8 : 8 + length])
    for entry in table.values():
        entry["data_offsets"] = [offset + len(first) for offset in entry["data_offsets"]]
    table["note"] = {"dtype": "U8", "shape": [len(first)], "data_offsets": [0, len(first)]}
    return json.dumps(table).encode(), first + whole[8 + length :]


def with_alpha(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    return saved({f"{key}.alpha": torch.tensor(value).to(dtype) for key in KEYS[:3]})


def shortened(path: Path) -> None:
    os.truncate(path, 100)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    """As a careful program saves: what was opened stays as it is."""
    other = path.with_suffix(".new")
    other.write_bytes(b"quite another file")
    other.replace(path)
