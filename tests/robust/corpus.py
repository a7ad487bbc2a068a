"""Files made by hand: what a strategy would not find, each with what must be said of it."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from safetensors.torch import save as library_save

from duolora_core.files import tensor_file
from duolora_core.files.tensor_header import MOST_HEADER_BYTES, MOST_KEYS
from lora.test_read_refused import FOREIGN
from robust.makers import (
    bomb,
    fifo,
    folder_instead,
    grown,
    linked,
    many,
    merged,
    misaligned,
    pickled,
    replaced,
    rewritten,
    saved,
    shortened,
    sparse,
    with_alpha,
    written,
)
from robust.other_kinds import other_kinds
from robust.spoiling import packed
from robust.strangers import KEYS, TEXT_KEYS, healthy
from robust.verdicts import lora_fault
from tiny import layout

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
    meanwhile: Callable[[Path], object] | None = None

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

    def __init__(self, path: Path, meanwhile: Callable[[Path], object] | None):
        self.path, self.meanwhile = path, meanwhile

    def update(self, _: object) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile(self.path)

    def hexdigest(self) -> str:
        return "0" * 64


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
    good = written(saved({}))
    found = {
        "healthy": Case(good, TAKEN),
        "a merge of ours": Case(merged, TAKEN),
        "capitals": Case(written(saved({}), "ODD.SafeTensors"), TAKEN),
        "misaligned": Case(written(misaligned), TAKEN),
        "alpha 0": Case(written(with_alpha(0.0)), TAKEN),
        "alpha negative": Case(written(with_alpha(-4.0)), TAKEN),
        "alpha as an integer": Case(written(with_alpha(4, torch.int64)), TAKEN),
        "alpha huge": Case(written(with_alpha(1e30)), "alpha 1e"),
        "alpha beyond float32": Case(written(with_alpha(1e300, torch.float64)), "NaN or infinity"),
        "alpha NaN": Case(written(with_alpha(float("nan"))), "NaN or infinity"),
        "rank above the layer": Case(written(saved(wide)), TAKEN),
        "rank of a text layer above all": Case(written(saved(text)), TAKEN),
        "core above the layer": Case(written(saved(tucker)), "core of rank 20000"),
        "core without dimensions": Case(
            written(saved({f"{KEYS[0]}.lora_mid.weight": torch.tensor(1.0)})), "do not fit each other"
        ),
        "core in a text layer": Case(written(saved(core)), "text encoders have none"),
        "rank 0": Case(written(saved({up: torch.ones(width, 0), down: torch.ones(0, inputs)})), "do not fit"),
        **{name: Case(make, words) for name, (make, words) in other_kinds().items()},
        "up without down": Case(written(saved({down: None})), "no down weight"),
        "down without up": Case(written(saved({up: None})), "no up weight"),
        "whole numbers": Case(written(saved({up: torch.ones(width, 2, dtype=torch.int8)})), "int8"),
        "NaN": Case(written(saved({up: torch.full((width, 2), float("nan"))})), "NaN or infinity"),
        "product beyond float32": Case(
            written(saved({up: torch.full((width, 2), 1e25), down: torch.full((2, inputs), 1e25)})), "changes the model"
        ),
        "words as a path": Case(written(saved({}, **{"modelspec.trigger_phrase": "embedding:../../secret"})), TAKEN),
        "words without end": Case(written(saved({}, **{"modelspec.trigger_phrase": "x" * 5_000_000})), TAKEN),
        "tags nested deep": Case(written(saved({}, ss_tag_frequency="[" * 1_000_000)), TAKEN),
        "tags beyond numbers": Case(written(saved({}, ss_tag_frequency='{"a": {"b": 1e999}}')), TAKEN),
        "empty": Case(written(b""), "only 0 bytes"),
        "seven bytes": Case(written(b"1234567"), "only 7 bytes"),
        "empty header": Case(written(packed(b"", b"")), "not JSON"),
        "header of a web page": Case(written(b"<!DOCTYPE html><html>Log in</html>"), "web page"),
        "pointer": Case(written(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "Git LFS"),
        "compressed": Case(written(gzip.compress(saved({}))), "longer than the file"),
        "header beyond the file": Case(written(struct.pack("<Q", 2**40) + b"{}"), "longer than the file"),
        "header beyond the bound": Case(sparse(MOST_HEADER_BYTES * 3, b" " * (MOST_HEADER_BYTES + 1)), "header has"),
        "a hundred GB": Case(sparse(100 << 30), "more than any LoRA"),
        "seven GB of holes": Case(sparse(7 << 30), "bytes"),
        "the same key twice": Case(written(packed(f'{{"a":{{{entry}}},"a":{{{entry}}}}}'.encode(), b"1234")), "twice"),
        "overlapping": Case(
            written(packed(f'{{"{up}":{{{entry}}},"{down}":{{{entry}}}}}'.encode(), b"1234")), "begins at byte"
        ),
        "a hole": Case(
            written(packed(f'{{"{up}":{{{entry.replace("[0,4]", "[4,8]")}}}}}'.encode(), b"12345678")), "begins at byte"
        ),
        "ends before it begins": Case(
            written(packed(f'{{"{up}":{{{entry.replace("[0,4]", "[4,0]")}}}}}'.encode(), b"")), "makes no sense"
        ),
        "another shape than bytes": Case(
            written(packed(f'{{"{up}":{{{entry.replace("[1]", "[2]")}}}}}'.encode(), b"1234")), "what its shape needs"
        ),
        "an empty shape beyond all numbers": Case(
            written(
                packed(
                    f'{{"{up}":{{{entry.replace("[1]", f"[0,{2**62},{2**62}]").replace("4]", "0]")}}}}}'.encode(), b""
                )
            ),
            "makes no sense",
        ),
        "a quarter of a million keys": Case(written(lambda: many(250_000)), "more than 30000 entries"),
        "as many keys as are read": Case(written(lambda: many(MOST_KEYS - 1)), "no LoRA weights"),
        "a number of many digits": Case(
            written(packed(b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,4]}}', b"1234")),
            "makes no sense",
        ),
        "header nested deep": Case(written(packed(b"[" * 1_000_000, b"")), "not JSON"),
        "header of lists": Case(written(bomb('{"a":[', "[],", "0]}")), "no dtype"),
        "header of strings": Case(written(bomb('{"a":[', '"Ā",', "0]}")), "no dtype"),
        "header of objects": Case(written(bomb('{"a":[', "{},", "0]}")), "entries"),
        "metadata of 16 MB": Case(written(bomb('{"__metadata__":{"a":"', "😀", '"}}')), "no LoRA weights"),
        "escape codes in a key": Case(written(saved({"\x1b[31mred": torch.ones(1)})), "no layer is called"),
        "a megabyte of key": Case(written(saved({"k" * 1_000_000: torch.ones(1)})), "no layer is called"),
        "escape codes in the name": Case(written(b"", "\x1b[31mred\n.safetensors"), "only 0 bytes"),
        "a name that turns around": Case(written(b"", "a\u202ecod.safetensors"), "only 0 bytes"),
        "missing": Case(lambda folder: folder / "odd.safetensors", "no such file"),
        "a link": Case(linked("target.bin"), TAKEN),
        "a link to nothing": Case(linked("nothing"), "no such file"),
        "a link to itself": Case(linked("odd.safetensors"), "cannot be opened"),
        "a link to a device": Case(linked("/dev/zero"), "not a file"),
        "a link to memory": Case(linked("/proc/self/mem"), "cannot be read"),
        "a pipe": Case(fifo, "not a file"),
        "a folder": Case(folder_instead, "not a file"),
        "shortened meanwhile": Case(good, "changed while it was read", shortened),
        "grown meanwhile": Case(good, "changed while it was read", grown),
        "rewritten meanwhile": Case(good, "changed while it was read", rewritten),
        "gone meanwhile": Case(good, TAKEN, lambda path: path.rename(path.with_suffix(".moved"))),
        "replaced meanwhile": Case(good, TAKEN, replaced),
    }
    for how in ("plain", "text", "zip", "old"):
        found[f"a pickle ({how})"] = Case(pickled(how, "odd.safetensors"), "safetensors file")
        found[f"a pickle ({how}) by its name"] = Case(pickled(how, "odd.pt"), "only .safetensors")
    for number, (family, tensors) in enumerate(FOREIGN):
        found[f"made for another model {number}"] = Case(written(library_save(tensors)), family)
    return found
