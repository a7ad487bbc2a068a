"""A model that overflows in a training, after a number of forwards that are as they should be."""

from __future__ import annotations

import itertools
import time
from typing import Any

import comfy.patcher_extension
import torch
from comfy_api.latest import io
from torch import Tensor


class Overflow(io.ComfyNode):
    """Spoils forwards that keep activations: what comes out of all later ones, or the gradient of the next one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model in, the same model with a wrapper out."""
        return io.Schema(
            node_id="DuoLoRATestOverflow",
            display_name="Overflow (test)",
            category="DuoLoRA/test",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("good", default=2, min=0, max=1000),
                io.Combo.Input("what", options=["output", "gradient"], default="output"),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> int:
        """Another in every run, so that each counts anew."""
        return time.monotonic_ns()

    @classmethod
    def execute(cls, model: Any, good: int, what: str) -> io.NodeOutput:
        """Wraps what the host calls for every forward."""
        calls = itertools.count()

        def forward(executor: Any, *args: Any, **kwargs: Any) -> Any:
            output: Tensor = executor(*args, **kwargs)
            if not torch.is_grad_enabled():
                return output
            call = next(calls)
            if what == "gradient" and call == good:
                output.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
            return output * torch.inf if what == "output" and call >= good else output

        spoiled = model.clone()
        comfy.patcher_extension.add_wrapper(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL, forward, spoiled.model_options, is_model_options=True
        )
        return io.NodeOutput(spoiled)
