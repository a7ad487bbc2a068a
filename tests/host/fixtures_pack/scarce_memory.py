"""A model whose device runs out of memory, as the host's own allocator would report it."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy_api.latest import io


class ScarceMemory(io.ComfyNode):
    """Lets the first few forwards that keep activations fail, or all of a single sample that keep none."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model in, the same model with a wrapper out."""
        return io.Schema(
            node_id="DuoLoRATestScarceMemory",
            display_name="Scarce Memory (test)",
            category="DuoLoRA/test",
            not_idempotent=True,
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("failures", default=1, min=0, max=1000),
                io.Boolean.Input("single", default=False, optional=True),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any, failures: int, single: bool = False) -> io.NodeOutput:
        """Wraps what the host calls for every forward."""
        left = failures

        def forward(executor: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if single and not torch.is_grad_enabled() and len(args[0]) == 1:
                raise comfy.model_management.OOM_EXCEPTION("Allocation on device")
            if torch.is_grad_enabled() and left:
                left -= 1
                raise comfy.model_management.OOM_EXCEPTION("Allocation on device")
            return executor(*args, **kwargs)

        scarce = model.clone()
        comfy.patcher_extension.add_wrapper(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL, forward, scarce.model_options, is_model_options=True
        )
        return io.NodeOutput(scarce)
