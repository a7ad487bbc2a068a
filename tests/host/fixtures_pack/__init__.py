"""Nodes that only the host tests use: a tiny text encoder, and a look into a model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .model_digest import ModelDigest
from .tiny_clip import TinyCLIP


class FixturesExtension(ComfyExtension):
    """The two test-only nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [TinyCLIP, ModelDigest]


async def comfy_entrypoint() -> FixturesExtension:
    """Called by ComfyUI when it loads the pack."""
    return FixturesExtension()
