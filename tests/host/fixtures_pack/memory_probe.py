"""What a host's process holds at this moment: memory, objects, threads and open files."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import comfy.model_patcher
import torch
from comfy_api.latest import io, ui

CACHE: Any = type(functools.lru_cache(len))


def held() -> dict[str, Any]:
    """After a collection, so that only what something still refers to is counted; sizes in bytes."""
    gc.collect()
    blocks, objects = sys.getallocatedblocks(), gc.get_objects()
    kinds = Counter(map(type, objects))
    tensors = [each for each in objects if issubclass(type(each), torch.Tensor)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    caches = [each for each in objects if type(each) is CACHE and "DuoLoRA" in each.__module__]
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "resident": pages * os.sysconf("SC_PAGE_SIZE"),
        "blocks": blocks,
        "objects": len(objects),
        "tensors": len(tensors),
        "tensor_bytes": sum(storages.values()),
        "patchers": number(kinds, comfy.model_patcher.ModelPatcher),
        "modules": number(kinds, torch.nn.Module),
        "cached": sum(each.cache_info().currsize for each in caches),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": sorted(open_files()),
    }


def number(kinds: Counter[type], base: type) -> int:
    """How many objects are of a class or of one derived from it."""
    return sum(count for kind, count in kinds.items() if issubclass(kind, base))


def open_files() -> list[str]:
    """What is open that is a file; sockets and pipes come and go with the page."""
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # the folder's own handle
            continue
    return [name for name in found if name.startswith("/") and not name.startswith("/dev/")]


class MemoryProbe(io.ComfyNode):
    """Runs every time, never from the cache."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The report as text."""
        return io.Schema(
            node_id="DuoLoRATestMemoryProbe",
            display_name="Memory Probe (test)",
            category="DuoLoRA/test",
            is_output_node=True,
            inputs=[io.AnyType.Input("after", optional=True, tooltip="Anything that has to be computed before.")],
            outputs=[io.String.Output(display_name="report")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        """Never equal to the last run's."""
        return float("nan")

    @classmethod
    def execute(cls, after: Any = None) -> io.NodeOutput:
        """Look."""
        report = json.dumps(held())
        return io.NodeOutput(report, ui=ui.PreviewText(report))
