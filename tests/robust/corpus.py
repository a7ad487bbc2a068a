"""Files made by hand: what a strategy would not find, each with what must be said of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save as library_save
from torch import Tensor

from duolora_core import kohya_state_dict, make_merged, make_pair, open_gates, place, tensor_file
from duolora_core.lora_save import FileInfo, metadata, write_safetensors
from duolora_core.tensor_header import MOST_HEADER_BYTES, MOST_KEYS
from robust.spoiling import packed
from robust.strangers import KEYS, TEXT_KEYS, healthy
from robust.verdicts import lora_fault
from test_lora_file_refused import FOREIGN
from tiny import layout
from worlds import lora

TAKEN = None
"""In place of words: the file is merged, and rightly."""


@dataclass(frozen=True)
class Case:
    """A file, and the words that its refusal must hold.

    Attributes:
        make: writes it into a folder and returns its path
        words: None if it must be merged instead
        meanwhile: what another program does to the file while it is read
    """

    make: Callable[[Path], Path]
    words: str | None
    meanwhile: Callable[[Path], None] | None = None

    def fault(self, folder: Path) -> str | None:
        """What is wrong with how it is taken; None if nothing is."""
        path = self.make(folder)
        if self.meanwhile is None:
            return lora_fault(path, self.words)
        disturbed = SimpleNamespace(sha256=lambda: _Disturbed(path, self.meanwhile))
        with patch.object(tensor_file, "hashlib", disturbed):
            return lora_fault(path, self.words)


class _Disturbed:
    """A digest whose first bytes set off what another program does."""

    def __init__(self, path: Path, meanwhile: Callable[[Path], None] | None):
        self.path, self.meanwhile = path, meanwhile

    def update(self, _: object) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile(self.path)

    def hexdigest(self) -> str:
        return "0" * 64


def _file(content: bytes | Callable[[], bytes], name: str = "odd.safetensors") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return make


def _saved(change: dict[str, Tensor | None], base: dict[str, Tensor] | None = None, **about: str) -> bytes:
    tensors: dict[str, Tensor | None] = {**(healthy() if base is None else base), **change}
    return library_save({key: tensor for key, tensor in tensors.items() if tensor is not None}, about)


class _Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _pickled(how: str, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        state = {"lora_unet_x.lora_up.weight": torch.ones(2, 2), "evil": _Evil(folder / "unpickled")}
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


def _sparse(size: int, header: bytes = b"{}") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = _file(packed(header, b""))(folder)
        os.truncate(path, size)
        return path

    return make


def _many(count: int) -> bytes:
    """A header of so many empty tensors that all end where they begin."""
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return packed(("{" + ",".join(f'"{i:x}":{entry}' for i in range(count)) + "}").encode(), b"")


def _bomb(start: str, middle: str, end: str) -> Callable[[], bytes]:
    """A header as long as is read at most, of one thing again and again."""
    return lambda: packed((start + middle * ((MOST_HEADER_BYTES - 200) // len(middle.encode())) + end).encode(), b"")


def _merged(folder: Path) -> Path:
    """A file of our own, fed back in."""
    content, style = (place(lora(_factors(seed), "a.safetensors"), layout()) for seed in (5, 6))
    pair = make_pair(content, style, layout())
    folded = make_merged(pair, open_gates(pair), {"steps": 1}).fold()
    values = metadata(folded, FileInfo("ours", "a dog"), {"steps": 1})
    return write_safetensors(folder / "merged_00001.safetensors", kohya_state_dict(folded), values)


def _factors(seed: int) -> Any:
    from factors import random_factors, shapes_of
    from robust.verdicts import LAYERS

    return random_factors(shapes_of(LAYERS), 3, seed)


def _linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _file(_saved({}), "target.bin")(folder)
        path = folder / "odd.safetensors"
        path.symlink_to(folder / target)
        return path

    return make


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "odd.safetensors")
    return folder / "odd.safetensors"


def _folder(folder: Path) -> Path:
    (folder / "odd.safetensors").mkdir()
    return folder / "odd.safetensors"


def _misaligned() -> bytes:
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


def _alpha(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    return _saved({f"{key}.alpha": torch.tensor(value).to(dtype) for key in KEYS[:3]})


def _shortened(path: Path) -> None:
    os.truncate(path, 100)


def _grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _rewritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, (1, 1))


def _replaced(path: Path) -> None:
    """As a careful program saves: what was opened stays as it is."""
    other = path.with_suffix(".new")
    other.write_bytes(b"quite another file")
    other.replace(path)


def cases() -> dict[str, Case]:
    """Every file by what is odd in it."""
    up, down = f"{KEYS[0]}.lora_up.weight", f"{KEYS[0]}.lora_down.weight"
    width = healthy()[up].shape[0]
    inputs = healthy()[down].shape[1]
    wide = {up: torch.randn(width, 3000) / 99, down: torch.randn(3000, inputs) / 99}
    conv = next(key for key in KEYS if "in_layers" in key)
    channels = layout().layers["middle_block.0.in_layers.2"].shape[:2]
    tucker = {
        f"{conv}.lora_up.weight": torch.ones(channels[0], 20_000, 1, 1),
        f"{conv}.lora_mid.weight": torch.ones(20_000, 1, 3, 3),
        f"{conv}.lora_down.weight": torch.ones(1, channels[1], 1, 1),
    }
    text = {
        f"{TEXT_KEYS[0]}.lora_up.weight": torch.ones(12, 20_000) / 1e5,
        f"{TEXT_KEYS[0]}.lora_down.weight": torch.ones(20_000, 12) / 1e5,
    }
    core = {
        f"{TEXT_KEYS[0]}.lora_up.weight": torch.ones(12, 2),
        f"{TEXT_KEYS[0]}.lora_mid.weight": torch.ones(2, 2, 3, 3),
        f"{TEXT_KEYS[0]}.lora_down.weight": torch.ones(2, 12, 1, 1),
    }
    entry = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
    good = _file(_saved({}))
    found = {
        "healthy": Case(good, TAKEN),
        "a merge of ours": Case(_merged, TAKEN),
        "capitals": Case(_file(_saved({}), "ODD.SafeTensors"), TAKEN),
        "misaligned": Case(_file(_misaligned), TAKEN),
        "alpha 0": Case(_file(_alpha(0.0)), TAKEN),
        "alpha negative": Case(_file(_alpha(-4.0)), TAKEN),
        "alpha as an integer": Case(_file(_alpha(4, torch.int64)), TAKEN),
        "alpha huge": Case(_file(_alpha(1e30)), "alpha 1e"),
        "alpha beyond float32": Case(_file(_alpha(1e300, torch.float64)), "NaN or infinity"),
        "alpha NaN": Case(_file(_alpha(float("nan"))), "NaN or infinity"),
        "rank above the layer": Case(_file(_saved(dict(wide))), TAKEN),
        "rank of a text layer above all": Case(_file(_saved(dict(text))), TAKEN),
        "core above the layer": Case(_file(_saved(dict(tucker))), "core of rank 20000"),
        "core in a text layer": Case(_file(_saved(dict(core))), "text encoders have none"),
        "rank 0": Case(_file(_saved({up: torch.ones(width, 0), down: torch.ones(0, inputs)})), "do not fit"),
        "up without down": Case(_file(_saved({down: None})), "no down weight"),
        "down without up": Case(_file(_saved({up: None})), "no up weight"),
        "whole numbers": Case(_file(_saved({up: torch.ones(width, 2, dtype=torch.int8)})), "int8"),
        "NaN": Case(_file(_saved({up: torch.full((width, 2), float("nan"))})), "NaN or infinity"),
        "product beyond float32": Case(
            _file(_saved({up: torch.full((width, 2), 1e25), down: torch.full((2, inputs), 1e25)})), "changes the model"
        ),
        "words as a path": Case(_file(_saved({}, **{"modelspec.trigger_phrase": "embedding:../../secret"})), TAKEN),
        "words without end": Case(_file(_saved({}, **{"modelspec.trigger_phrase": "x" * 5_000_000})), TAKEN),
        "tags nested deep": Case(_file(_saved({}, ss_tag_frequency="[" * 1_000_000)), TAKEN),
        "tags beyond numbers": Case(_file(_saved({}, ss_tag_frequency='{"a": {"b": 1e999}}')), TAKEN),
        "empty": Case(_file(b""), "only 0 bytes"),
        "seven bytes": Case(_file(b"1234567"), "only 7 bytes"),
        "empty header": Case(_file(packed(b"", b"")), "not JSON"),
        "header of a web page": Case(_file(b"<!DOCTYPE html><html>Log in</html>"), "web page"),
        "pointer": Case(_file(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "Git LFS"),
        "compressed": Case(_file(gzip.compress(_saved({}))), "longer than the file"),
        "header beyond the file": Case(_file(struct.pack("<Q", 2**40) + b"{}"), "longer than the file"),
        "header beyond the bound": Case(_sparse(MOST_HEADER_BYTES * 3, b" " * (MOST_HEADER_BYTES + 1)), "header has"),
        "a hundred GB": Case(_sparse(100 << 30), "more than any LoRA"),
        "seven GB of holes": Case(_sparse(7 << 30), "bytes"),
        "the same key twice": Case(_file(packed(f'{{"a":{{{entry}}},"a":{{{entry}}}}}'.encode(), b"1234")), "twice"),
        "overlapping": Case(_file(packed(f'{{"a":{{{entry}}},"b":{{{entry}}}}}'.encode(), b"1234")), "begins at byte"),
        "a quarter of a million keys": Case(_file(lambda: _many(250_000)), "more than 30000 entries"),
        "as many keys as are read": Case(_file(lambda: _many(MOST_KEYS - 1)), "no LoRA weights"),
        "a number of many digits": Case(
            _file(packed(b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,4]}}', b"1234")),
            "makes no sense",
        ),
        "header nested deep": Case(_file(packed(b"[" * 1_000_000, b"")), "not JSON"),
        "header of lists": Case(_file(_bomb('{"a":[', "[],", "0]}")), "no dtype"),
        "header of strings": Case(_file(_bomb('{"a":[', '"Ā",', "0]}")), "no dtype"),
        "header of objects": Case(_file(_bomb('{"a":[', "{},", "0]}")), "entries"),
        "metadata of 16 MB": Case(_file(_bomb('{"__metadata__":{"a":"', "😀", '"}}')), "no LoRA weights"),
        "escape codes in a key": Case(_file(_saved({"\x1b[31mred": torch.ones(1)})), "no layer is called"),
        "a megabyte of key": Case(_file(_saved({"k" * 1_000_000: torch.ones(1)})), "no layer is called"),
        "escape codes in the name": Case(_file(b"", "\x1b[31mred\n.safetensors"), "only 0 bytes"),
        "a name that turns around": Case(_file(b"", "a\u202ecod.safetensors"), "only 0 bytes"),
        "missing": Case(lambda folder: folder / "odd.safetensors", "no such file"),
        "a link": Case(_linked("target.bin"), TAKEN),
        "a link to nothing": Case(_linked("nothing"), "no such file"),
        "a link to itself": Case(_linked("odd.safetensors"), "cannot be opened"),
        "a link to a device": Case(_linked("/dev/zero"), "no file"),
        "a link to memory": Case(_linked("/proc/self/mem"), "cannot be read"),
        "a pipe": Case(_fifo, "no file"),
        "a folder": Case(_folder, "no file"),
        "shortened meanwhile": Case(good, "changed while it was read", _shortened),
        "grown meanwhile": Case(good, "changed while it was read", _grown),
        "rewritten meanwhile": Case(good, "changed while it was read", _rewritten),
        "gone meanwhile": Case(good, TAKEN, lambda path: path.rename(path.with_suffix(".moved"))),
        "replaced meanwhile": Case(good, TAKEN, _replaced),
    }
    for how in ("plain", "text", "zip", "old"):
        found[f"a pickle ({how})"] = Case(_pickled(how, "odd.safetensors"), "safetensors file")
        found[f"a pickle ({how}) by its name"] = Case(_pickled(how, "odd.pt"), "only .safetensors")
    for number, (family, tensors) in enumerate(FOREIGN):
        found[f"made for another model {number}"] = Case(_file(library_save(tensors)), family)
    return found
