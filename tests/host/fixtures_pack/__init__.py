"""Nodes that only the host tests use: tiny models, the benchmarks' worlds, a full device, and looks into a model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .denoise import Denoise
from .every_step import tell_every_step
from .lora_stack import LoraStack
from .memory_probe import MemoryProbe
from .model_digest import ModelDigest
from .narrow_sdxl import NarrowSDXL
from .overflow import Overflow
from .scarce_memory import ScarceMemory
from .tiny_clip import TinyCLIP
from .tiny_vision import TinyVision
from .watch import Watching
from .world_checkpoint import accept_world_checkpoints
from .worlds import LoadWorld


class FixturesExtension(ComfyExtension):
    """The test-only nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [
            TinyCLIP,
            NarrowSDXL,
            LoadWorld,
            ModelDigest,
            MemoryProbe,
            Denoise,
            ScarceMemory,
            Overflow,
            TinyVision,
            Watching,
            LoraStack,
        ]


async def comfy_entrypoint() -> FixturesExtension:
    """Called by ComfyUI when it loads the pack."""
    accept_world_checkpoints()
    tell_every_step()
    return FixturesExtension()
