"""One evaluation of a MODEL by the pack's own denoiser, written to a file for the tests to look at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from safetensors.torch import load_file, save_file


def of_the_pack(module: str) -> Any:
    """A module of the pack under test, as the host has loaded it."""
    (found,) = [each for name, each in sys.modules.items() if name.endswith(f"ComfyUI-DuoLoRA.{module}")]
    return found


class Denoise(io.ComfyNode):
    """x0 of a batch as the trainer sees it, and the gradient of its mean square."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One prompt per line and sample; the file `given` holds x and sigma, the file `found` gets x0 and gradient."""
        return io.Schema(
            node_id="DuoLoRATestDenoise",
            display_name="Denoise (test)",
            category="DuoLoRA/test",
            is_output_node=True,
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.String.Input("prompts", multiline=True),
                io.String.Input("given"),
                io.String.Input("found"),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, prompts: str, given: str, found: str) -> io.NodeOutput:
        """The calls of a merge, without any LoRA."""
        pack_prompts, pack_denoiser = of_the_pack("nodes.host.prompts"), of_the_pack("nodes.host.denoiser")
        pack_memory = of_the_pack("duolora_core.model.memory.estimate")
        held = load_file(Path(given))
        conditionings = [pack_prompts.encode(clip, prompt) for prompt in prompts.split("\n")]
        conditions = [pack_prompts.condition(model, each, x) for each, x in zip(conditionings, held["x"], strict=True)]
        count, size = len(conditions), tuple(held["x"].shape[2:])
        work = pack_memory.Workload(pack_denoiser.unet_layout(model.model), {}, 0, size, students=count, teachers=count)
        limits = pack_denoiser.Limits(micro_batch=count, checkpointing=True, compute="as loaded")
        with pack_denoiser.training_denoiser(model, work, limits) as (denoise, _):
            x = held["x"].clone().requires_grad_()
            x0 = denoise(x, held["sigma"].clone(), conditions)
            (gradient,) = torch.autograd.grad(x0.square().mean(), [x])
            save_file({"x0": x0.detach(), "gradient": gradient}, Path(found))
        return io.NodeOutput()
