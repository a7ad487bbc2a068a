"""Weights that are streamed to the card layer by layer, by the host's own patcher, without the library that does it.

The host's `ModelPatcherDynamic` needs comfy-aimdo, which talks to the driver. Its stand-ins hold no memory: every
weight has to be brought to the card at each use, which the host can do as well.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import comfy.cli_args
import comfy.model_patcher
from safetensors import safe_open


class NoReservation:
    """In the place of aimdo's address range on the card: it never has a page for a weight."""

    def __init__(self, *_: Any):
        self.size = 0

    def alloc(self, size: int) -> tuple[Any, int, int]:
        return self, 0, size

    def prioritize(self) -> None: ...

    def loaded_size(self) -> int:
        return 0

    def free_memory(self, size: float) -> int:
        return 0

    def truncate(self, offset: int, do_unregister: bool = True) -> None: ...


@contextmanager
def streamed_weights() -> Generator[None, None, None]:
    """Inside, models that the host loads are streamed; not for hosts without `ModelPatcherDynamic`."""
    aimdo = {
        "comfy_aimdo.model_vbar.ModelVBAR": NoReservation,
        "comfy_aimdo.model_vbar.vbar_fault": lambda _: None,
        "comfy_aimdo.model_vbar.vbar_signature_compare": lambda _, __: False,
        "comfy_aimdo.model_vbar.vbar_unpin": lambda _: None,
        "comfy_aimdo.model_vbar.vbars_reset_watermark_limits": lambda: None,
        "comfy_aimdo.control.analyze": lambda: None,
        "comfy_aimdo.host_buffer.HostBuffer": NoReservation,
        "comfy.utils.load_safetensors": read,
        "comfy.memory_management.aimdo_enabled": True,
        "comfy.model_patcher.CoreModelPatcher": comfy.model_patcher.ModelPatcherDynamic,
    }
    with ExitStack() as stack:
        for name, value in aimdo.items():
            stack.enter_context(patch(name, value))
        stack.enter_context(patch.object(comfy.cli_args.args, "disable_pinned_memory", True))
        yield


def read(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A file's tensors and metadata, for the host, whose own reader maps the file with aimdo."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
