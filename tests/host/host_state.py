"""Everything that a node could leave changed in a host's process: the models, the patchers, PyTorch's own modes.

Unlike the digest node, which tells a test process what a server holds, this runs where the nodes run and compares
object by object.
"""

# The registries of nn.Module are where hooks and swapped tensors would show.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_REGISTRIES = {"_parameters", "_buffers", "_modules"}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is not as it was, one line each."""
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return [f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in changed]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"


def process_state(with_random_numbers: bool) -> dict[str, Any]:
    """Modes, random numbers and threads of this process, as seen by the calling thread."""
    matmul = torch.backends.cuda.matmul
    return (random_state() if with_random_numbers else {}) | {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "TF32": (matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads of torch": torch.get_num_threads(),
        "module hooks of all modules": _global_hooks(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }


def random_state() -> dict[str, Any]:
    """The global generators on the CPU."""
    kind, keys, *place = np.random.get_state()
    return {
        "torch random numbers": torch.random.get_rng_state().numpy().tobytes(),
        "python random numbers": random.getstate(),
        "numpy random numbers": (kind, np.asarray(keys).tobytes(), *place),
    }


def _global_hooks() -> int:
    from torch.nn.modules import module

    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return sum(len(getattr(module, name)) for name in names)


def open_files(folder: Path) -> list[str]:
    """Files below a folder that this process holds open or mapped."""
    handles = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    maps = [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    return sorted({path for path in (*handles, *maps) if path.startswith(str(folder))})


def module_state(root: nn.Module) -> dict[str, Any]:
    """{what: what it is now} of all modules below `root`: the objects themselves, their hooks, flags and attributes."""
    found: dict[str, Any] = {}
    for name, module in root.named_modules():
        found[f"{name} module"] = (id(module), module.training)
        for key, value in vars(module).items():
            if key in _REGISTRIES:
                continue
            if key.endswith("hooks") or key.endswith("hooks_with_kwargs"):
                found[f"{name} {key}"] = _identities(value)
            elif isinstance(value, bool | int | float | str | torch.dtype | torch.device) or value is None:
                found[f"{name} {key}"] = value
            elif isinstance(value, list | tuple | dict | set):
                found[f"{name} {key}"] = len(value)
            else:
                found[f"{name} {key}"] = id(value)
    return found


def _identities(hooks: Any) -> tuple[int, ...]:
    return tuple(id(hook) for hook in hooks.values()) if isinstance(hooks, dict) else (id(hooks),)


def tensor_state(root: nn.Module, identity: bool) -> dict[str, Any]:
    """{parameter or buffer: flags}; with its identity and address unless the host itself may have replaced it."""
    return {
        name: (
            tensor.dtype,
            str(tensor.device),
            tuple(tensor.shape),
            tensor.requires_grad,
            tensor.grad is None,
            tensor.is_inference(),
            type(tensor).__name__,
            (id(tensor), tensor.data_ptr()) if identity else None,
        )
        for name, tensor in named_tensors(root)
    }


def named_tensors(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers."""
    yield from root.named_parameters()
    yield from root.named_buffers()


class Bits:
    """A copy of all numbers of a network, to compare with later."""

    def __init__(self, root: nn.Module):
        self._root = root
        self._kept = {name: tensor.detach().clone() for name, tensor in named_tensors(root)}

    def changed(self) -> list[str]:
        """Parameters and buffers that are no longer bit for bit what they were."""
        now = dict(named_tensors(self._root))
        other = {name for name, kept in self._kept.items() if name not in now or not _equal(kept, now[name])}
        return sorted(other | (now.keys() - self._kept.keys()))


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit: NaN equals NaN, and 0 is not -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.contiguous().view(-1).view(integers), other.detach().contiguous().view(-1).view(integers))


def patcher_state(patcher: Any) -> dict[str, Any]:
    """What is patched, injected and set on a ModelPatcher, and on the model that it shares with its clones."""
    model = patcher.model
    found: dict[str, Any] = {
        "patches": sorted(patcher.patches),
        "patches id": str(patcher.patches_uuid),
        "object patches": _ids(patcher.object_patches),
        "weights kept for unpatching": sorted(patcher.backup),
        "objects kept for unpatching": _ids(patcher.object_patches_backup),
        "injections": {key: len(each) for key, each in patcher.injections.items()},
        "injected": patcher.is_injected,
        "hook patches": len(patcher.hook_patches),
        "model options": _plain(patcher.model_options),
        "force cast": getattr(patcher, "force_cast_weights", None),
        "lowvram": (model.model_lowvram, model.lowvram_patch_counter),
        "weights patched in": str(getattr(model, "current_weight_patches_uuid", None)),
    }
    if hasattr(model, "manual_cast_dtype"):
        found["compute dtype"] = str(model.manual_cast_dtype)
    return found


def _ids(objects: Mapping[str, Any]) -> dict[str, int]:
    return {key: id(value) for key, value in objects.items()}


def _plain(value: Any) -> Any:
    """Nested options as comparable data; anything else by its identity."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str) or value is None else id(value)
