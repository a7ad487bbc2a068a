"""An audit hook in the host's process: what is done to the outside between two graphs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from .model_digest import shared


class Watching(io.ComfyNode):
    """Switched on, it collects; switched off, it tells what was found. Only the first call names the folder."""

    watch: Any = None
    running: contextlib.ExitStack | None = None

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DuoLoRATestWatch",
            display_name="Watch (test)",
            category="DuoLoRA/test",
            is_output_node=True,
            not_idempotent=True,
            inputs=[
                io.Boolean.Input("on", default=True),
                io.String.Input("folder", default="", tooltip="The only folder below which files may be written."),
            ],
            outputs=[],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, on: bool, folder: str) -> io.NodeOutput:
        if Watching.watch is None:
            module: Any = shared(Path(__file__).resolve().parents[2] / "audit_hook.py")
            Watching.watch = module.Watch([Path(folder)], Path(folder) / "custom_nodes")
        if on:
            Watching.running = contextlib.ExitStack()
            Watching.running.enter_context(Watching.watch.on())
        elif Watching.running is not None:
            Watching.running.close()
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(Watching.watch.found)))
