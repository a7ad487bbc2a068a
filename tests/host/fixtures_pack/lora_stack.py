"""A LORA_STACK as other packs hand it on."""

from __future__ import annotations

import json

from comfy_api.latest import io


class LoraStack(io.ComfyNode):
    """Gives what a stacker node gives: a list of (name, model strength, clip strength)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The entries as JSON, one stack."""
        return io.Schema(
            node_id="DuoLoRATestLoraStack",
            display_name="LoRA Stack (test)",
            category="DuoLoRA/test",
            inputs=[io.String.Input("entries")],
            outputs=[io.Custom("LORA_STACK").Output()],
        )

    @classmethod
    def execute(cls, entries: str) -> io.NodeOutput:
        """Tuples, as the packs make them."""
        return io.NodeOutput([tuple(entry) for entry in json.loads(entries)])
