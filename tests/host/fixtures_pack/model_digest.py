"""A fingerprint of a model as it is in memory at this moment, to prove that nothing was left behind in it."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io, ui

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# What each network consisted of when it was first looked at: name -> weak reference to the very object.
first_seen: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, weakref.ref[Any]]] = weakref.WeakKeyDictionary()


def tensors(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers with their names."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def content_hash(network: torch.nn.Module) -> str:
    """SHA-256 over the name, dtype, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in tensors(network):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def replaced(network: torch.nn.Module) -> list[str]:
    """Names of modules, parameters and buffers that are new, gone, or other objects than at the first look."""
    objects: dict[str, Any] = {f"module {name}": module for name, module in network.named_modules()}
    objects |= {f"tensor {name}": tensor for name, tensor in tensors(network)}
    first = first_seen.setdefault(network, {name: weakref.ref(each) for name, each in objects.items()})
    changed = {name for name, each in objects.items() if name in first and first[name]() is not each}
    return sorted(changed | (first.keys() ^ objects.keys()))


def identity_hash(network: torch.nn.Module) -> str:
    """SHA-256 over the ids of all modules and tensors and the addresses of all storages."""
    ids = [id(module) for module in network.modules()]
    ids += [number for _, tensor in tensors(network) for number in (id(tensor), tensor.data_ptr())]
    return hashlib.sha256(repr(ids).encode()).hexdigest()


def describe(model: Any) -> dict[str, Any]:
    """Everything the digest node reports about a ModelPatcher's network."""
    network = model.model.diffusion_model
    modules = list(network.modules())
    return {
        "digest": content_hash(network),
        "identity": identity_hash(network),
        "replaced": replaced(network),
        "hooks": sum(len(getattr(module, kind)) for module in modules for kind in HOOKS),
        "forward_overrides": sum("forward" in vars(module) for module in modules),
        "requires_grad": sum(tensor.requires_grad for _, tensor in tensors(network)),
        "with_grad": sum(parameter.grad is not None for parameter in network.parameters()),
        "inference_tensors": sum(tensor.is_inference() for _, tensor in tensors(network)),
        "training_modules": sum(module.training for module in modules),
        "dtypes": dict(Counter(str(tensor.dtype) for _, tensor in tensors(network))),
        "modules": len(modules),
        "tensors": sum(1 for _ in tensors(network)),
        "patches": len(model.patches),
        "backup": len(model.backup),
        "model_class": type(model.model).__name__,
        "config_class": type(model.model.model_config).__name__,
        "model_type": model.model.model_type.name,
    }


class ModelDigest(io.ComfyNode):
    """Reports the state of a model's network as JSON; runs every time, never from the cache."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model in; the report and the same model out."""
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
            outputs=[io.String.Output(display_name="report"), io.Model.Output(display_name="model")],
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
        return io.NodeOutput(report, model, ui=ui.PreviewText(report))
