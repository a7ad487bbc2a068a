"""A fingerprint of a model as it is in memory at this moment, to prove that nothing was left behind in it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io, ui


def shared(file: Path) -> ModuleType:
    """A module of the tests; the host's Python does not have their folder on its path."""
    spec = importlib.util.spec_from_file_location(f"duolora_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


host_state: Any = shared(Path(__file__).resolve().parents[1] / "host_state.py")


def content_hash(network: torch.nn.Module) -> str:
    """SHA-256 over the name, dtype, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in host_state.named_tensors(network):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe(model: Any) -> dict[str, Any]:
    """Of a ModelPatcher's network the bytes, the very objects with their flags, and what hangs on them."""
    network = model.model.diffusion_model
    objects = host_state.module_state(network), host_state.tensor_state(network, identity=True)
    modules = [vars(module) for module in network.modules()]
    return {
        "bytes": content_hash(network),
        "objects": [hashlib.sha256(repr(sorted(each.items())).encode()).hexdigest() for each in objects],
        "hooks": sum(len(each) for module in modules for name, each in module.items() if name.endswith("hooks")),
        "forward_overrides": sum("forward" in module for module in modules),
        "with_grad": sum(parameter.grad is not None for parameter in network.parameters()),
        "patches": (len(model.patches), len(model.backup)),
    }


class ModelDigest(io.ComfyNode):
    """Reports the state of a model's network as JSON; runs every time, never from the cache."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model in; the report out."""
        return io.Schema(
            node_id="DuoLoRATestModelDigest",
            display_name="Model Digest (test)",
            category="DuoLoRA/test",
            is_output_node=True,
            inputs=[
                io.Model.Input("model"),
                io.Boolean.Input(
                    "load", default=False, optional=True, tooltip="First load this model, so that its patches apply."
                ),
                io.AnyType.Input("after", optional=True, tooltip="Anything that has to be computed before the look."),
            ],
            outputs=[io.String.Output(display_name="report")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        """Never equal to the last run's: the state in memory can differ for equal inputs."""
        return float("nan")

    @classmethod
    def execute(cls, model: Any, load: bool = False, after: Any = None) -> io.NodeOutput:
        """Look at the model without changing it, unless it is to be loaded."""
        if load:
            comfy.model_management.load_models_gpu([model])
        report = json.dumps(describe(model))
        return io.NodeOutput(report, ui=ui.PreviewText(report))
