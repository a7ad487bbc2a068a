"""What is right to do with a stranger's file: to merge it as the slow reference does, or to refuse it clearly."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as library_load
from torch import Tensor

from duolora_core import (
    DuoLoraError,
    LoraPair,
    PlacedLora,
    kohya_state_dict,
    make_merged,
    make_pair,
    match_to_model,
    open_gates,
    read_lora,
)
from duolora_core.files.picture_batch import check_pictures
from duolora_core.files.sanitize import sanitize
from duolora_core.files.tensor_header import MOST_HEADER_BYTES
from duolora_core.lora.metadata import FileInfo, metadata
from duolora_core.lora.trigger_words import file_prompt
from duolora_core.merge.masks_file import gates_of, read_masks, roles_of
from duolora_core.report import Prompts, findings
from factors import random_factors, shapes_of
from tiny import layout, pick
from worlds import placed_lora

LAYERS = (
    *pick(r"middle_block\.1\.transformer_blocks\.0\.attn[12]\.to_[qk]$"),
    *pick(r"^input_blocks\.0\.0$|^middle_block\.0\.in_layers\.2$"),
)
"""The layers of the tiny UNet that files of these tests speak of: linears and convolutions."""

LONGEST_MESSAGE = 2000
MEMORY = 64 << 20
TIMES_FILE, TIMES_HEADER = 24, 32
"""Most memory on top of what was there: a constant, so many times the file, and so many times its header."""
MOST_SECONDS = 20.0
"""Of the processor, for reading and merging one file: far above the slowest, far below a hang."""


ANYTHING = ""
"""Words that every refusal holds."""


def lora_fault(path: Path, words_or_taken: str | None = ANYTHING) -> str | None:
    """What is wrong with how a LoRA file is taken; None if it is merged rightly or refused well.

    Args:
        words_or_taken: what a refusal must say; None: it must be merged; ANYTHING: either will do
    """
    content = path.read_bytes() if path.is_file() and 0 < path.stat().st_size < 1 << 30 else b""
    merged: dict[str, Tensor] = {}
    words: list[str] = []

    def merge() -> None:
        file = read_lora(path)
        pair = make_pair(match_to_model(file, layout()), _style(), layout())
        merged.update(kohya_state_dict(make_merged(pair, open_gates(pair)).fold(), torch.float32))
        given = file_prompt(path.name, file.metadata)
        words.extend([given.text] if given else [])

    fault, refused = _tried(merge, path)
    if fault:
        return fault
    if refused is not None:
        expected = words_or_taken is not None and words_or_taken in refused
        return None if expected else f"refused as: {refused}"
    if words_or_taken:
        return f"taken, not refused as {words_or_taken}"
    if not all(word.isprintable() and len(word) <= 300 for word in words):
        return f"trigger words that no prompt can hold: {words!r:.200}"
    try:
        held = library_load(content)
    except SafetensorError as error:
        return f"taken, although the format's own library refuses it: {error}"
    return _merge_fault(held, merged)


def masks_fault(path: Path) -> str | None:
    """The same for a masks file, and for all that its recipe goes into."""
    pair = masks_pair()

    def load() -> None:
        held = read_masks(path)
        roles_of(held, layout())
        inputs = held.recipe.get("inputs", {})
        own = [str(inputs.get(role, {}).get("prompt", "")) for role in ("content", "style")]
        findings({}, (), (), Prompts(own[0], own[1], str(held.recipe.get("combined_prompt", ""))))
        merged = make_merged(pair, gates_of(held, pair), held.recipe).fold()
        values = metadata(merged, FileInfo("again"), held.recipe)
        if sum(len(value) for value in values.values()) > 2_000_000:
            raise AssertionError("a recipe without bound")

    return _tried(load, path)[0]


def pictures_fault(batch: Tensor) -> str | None:
    """The same for an IMAGE: one that is taken has finite colours and a bounded shape."""
    try:
        check_pictures(batch, "pictures")
    except DuoLoraError as error:
        return _message_fault(error, "pictures")
    except Exception as error:  # the very thing that must not happen
        return f"{type(error).__name__}: {error}"
    good = batch.ndim == 4 and len(batch) > 0 and batch.shape[3] >= 3 and bool(batch.isfinite().all())
    return None if good else f"taken, although it is {batch.dtype} {tuple(batch.shape)}"


def reference(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, float]]:
    """{layer: (ΔW flat in float64, bound of its size)} of a LoRA in kohya's spelling, by the definition."""
    found: dict[str, tuple[Tensor, float]] = {}
    for name, layer in layout().layers.items():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.lora_up.weight" not in tensors:
            continue
        up, down = (tensors[f"{key}.lora_{side}.weight"].to(torch.float64) for side in ("up", "down"))
        rank = down.shape[0]
        scale = float(tensors[f"{key}.alpha"]) / rank if f"{key}.alpha" in tensors else 1.0
        if f"{key}.lora_mid.weight" in tensors:
            mid = tensors[f"{key}.lora_mid.weight"].to(torch.float64)
            down = torch.einsum("rskl,si->rikl", mid, down.flatten(1))
        delta = scale * (up.flatten(1) @ down.flatten(1))
        assert delta.numel() == torch.Size(layer.shape).numel()
        found[name] = delta, abs(scale) * float(up.norm() * down.norm())
    return found


def _merge_fault(held: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> str | None:
    style = kohya_state_dict(_alone(), torch.float32)
    parts, whole = [reference(held), reference(style)], reference(merged)
    if whole.keys() != parts[0].keys() | parts[1].keys():
        return f"merged other layers than both files hold: {sorted(whole.keys() ^ (parts[0].keys() | parts[1].keys()))}"
    for name, (delta, _) in whole.items():
        terms = [part[name] for part in parts if name in part]
        error = float((delta - sum(term for term, _ in terms)).norm())
        if not error <= 1e-4 * sum(size for _, size in terms) + 1e-30:
            return f"layer {name} is off by {error:g} of {[size for _, size in terms]}"
    return None


@cache
def _style() -> PlacedLora:
    return placed_lora(random_factors(shapes_of(LAYERS[:3]), 2, seed=2), name="style.safetensors")


@cache
def _alone() -> Any:
    """The healthy style LoRA by itself, as a FoldedLora."""
    nothing = placed_lora(random_factors(shapes_of(LAYERS[:3]), 1, seed=3), strength=0.0, name="nothing.safetensors")
    pair = make_pair(nothing, _style(), layout())
    return make_merged(pair, open_gates(pair)).fold(0.0, 1.0)


@cache
def masks_pair() -> LoraPair:
    """The pair whose masks files are spoilt."""
    return make_pair(placed_lora(random_factors(shapes_of(LAYERS[:2]), 2, seed=4)), _style(), layout())


@dataclass(frozen=True)
class _Cost:
    """What one attempt took: processor time, and memory where the system tells."""

    seconds: float
    peak: int | None


def _tried(attempt: Callable[[], None], path: Path) -> tuple[str | None, str | None]:
    """(what went wrong, how the file was refused)."""
    before, started = _memory(reset=True), time.process_time()
    refused = fault = None
    try:
        attempt()
    except DuoLoraError as error:
        refused, fault = str(error), _message_fault(error, sanitize(path.name))
    except Exception as error:  # the very thing that must not happen
        return f"{type(error).__name__}: {error!s:.500}", None
    after = _memory()
    peak = None if before is None or after is None else after["VmHWM"] - before["VmRSS"]
    return fault or _cost_fault(_Cost(time.process_time() - started, peak), path), refused


def _message_fault(error: DuoLoraError, name: str) -> str | None:
    text = str(error)
    if len(text) > LONGEST_MESSAGE:
        return f"a message of {len(text)} characters: {text:.200}"
    if not text.isprintable():
        return f"a message that cannot be printed: {text!r}"
    if name not in text:
        return f"a message that does not name {name}: {text}"
    if re.search(r"Traceback|object at 0x", text) or not text.endswith((".", "?")):
        return f"a message that is not written for people: {text}"
    return None


def _cost_fault(cost: _Cost, path: Path) -> str | None:
    size = path.stat().st_size if path.is_file() else 0
    header = min(size, MOST_HEADER_BYTES)
    if path.is_file() and size >= 8:
        with path.open("rb") as file:
            header = min(header, int.from_bytes(file.read(8), "little"))
    most = MEMORY + TIMES_FILE * size + TIMES_HEADER * header
    if cost.peak is not None and cost.peak > most:
        return f"took {cost.peak >> 20} MiB for a file of {size >> 20} MiB, more than {most >> 20}"
    return f"took {cost.seconds:.0f} s" if cost.seconds > MOST_SECONDS else None


def _memory(reset: bool = False) -> dict[str, int] | None:
    """{"VmRSS": bytes now, "VmHWM": most since the last reset}; None where the system does not tell (not Linux)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    pairs = (line.split(":") for line in lines if line.startswith(("VmRSS:", "VmHWM:")))
    return {name: int(value.split()[0]) << 10 for name, value in pairs}
