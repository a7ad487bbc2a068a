"""A host that believes in the card: everything that it would ask the driver is answered here, and put back after.

with pretended_card(HostSettings()) as activity:
    executor.run(graph)
print(activity.kernels, activity.syncs, activity.faults)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import comfy.cli_args
import comfy.model_management as management
import torch
from card.activity import Activity
from card.answers import CardAnswers
from card.dynamic import streamed_weights
from card.marks import CARD, PretendedGenerator, means_card, on_card
from card.operators import CardOperators
from card.settings import HostSettings
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.utils import _foreach_utils  # pyright: ignore[reportPrivateUsage]

GB = 2**30
TOTAL = 12 * GB
FREE = {"NORMAL_VRAM": 11 * GB, "HIGH_VRAM": 11 * GB, "LOW_VRAM": 2 * GB}
DRIVER = {
    "torch.cuda.current_device": 0,
    "torch.cuda.current_stream": None,
    "torch.cuda.set_device": None,
    "torch.backends.cuda.can_use_flash_attention": True,
}
"""What PyTorch and the driver say of the card."""


@contextmanager
def pretended_card(settings: HostSettings) -> Generator[Activity, None, None]:
    """Inside, the host computes on a card that is only pretended; models must have been unloaded before and after."""
    activity = Activity()
    with ExitStack() as stack:
        for name, value in answers(settings, activity).items():
            if hasattr(management, name):  # hosts ask different questions
                stack.enter_context(patch.object(management, name, value))
        for name, value in DRIVER.items():
            stack.enter_context(patch(name, lambda *_, value=value: value))
        stack.enter_context(patch("torch.cuda.synchronize", lambda *_: activity.sync("synchronize")))
        stack.enter_context(patch("torch.Generator", PretendedGenerator))
        for module in (_foreach_utils, clip_grad, import_module("torch.optim.optimizer")):
            stack.enter_context(patch.object(module, "_group_tensors_by_device_and_dtype", grouped))
        checks = "torch.utils.checkpoint._allowed_determinism_checks_to_fns"
        stack.enter_context(patch.dict(checks, {"default": described}))
        stack.enter_context(patch.object(comfy.cli_args.args, "bf16_unet", settings.bf16))
        if settings.dynamic:
            stack.enter_context(streamed_weights())
        stack.enter_context(CardOperators(activity))
        stack.enter_context(CardAnswers(activity))
        yield activity


def answers(settings: HostSettings, activity: Activity) -> dict[str, Any]:
    """{name in comfy.model_management: what stands there instead}."""
    free = FREE[settings.vram]
    free_of_host, total_of_host = management.get_free_memory, management.get_total_memory

    def free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
        if dev is not None and not means_card(dev):
            return free_of_host(dev, torch_free_too)
        return (free, 0) if torch_free_too else free

    def total_memory(dev: Any = None, torch_total_too: bool = False) -> Any:
        if dev is not None and not means_card(dev):
            return total_of_host(dev, torch_total_too)
        return (TOTAL, TOTAL) if torch_total_too else TOTAL

    def half(device: Any = None, *_: Any, **__: Any) -> bool:
        return device is None or means_card(device)

    return {
        "cpu_state": management.CPUState.GPU,
        "vram_state": management.VRAMState[settings.vram],
        "get_torch_device": lambda: CARD,
        "get_all_torch_devices": lambda exclude_current=False: [] if exclude_current else [CARD],
        "intermediate_device": lambda: CARD if settings.on_card else torch.device("cpu"),
        "get_total_memory": total_memory,
        "get_free_memory": free_memory,
        "should_use_fp16": half,
        "should_use_bf16": half,
        "is_nvidia": lambda: True,
        "supports_fp8_compute": lambda device=None: False,
        "supports_nvfp4_compute": lambda device=None: False,
        "supports_mxfp8_compute": lambda device=None: False,
        "synchronize": lambda: activity.sync("synchronize"),
        "soft_empty_cache": lambda force=False: activity.sync("empty_cache"),
        "NUM_STREAMS": 0,
        "MAX_PINNED_MEMORY": -1,
    }


def described(x: Tensor) -> dict[str, Any]:
    """What a checkpointed block compares when it runs again: inside of a function PyTorch would see the real device."""
    return {"shape": x.shape, "dtype": x.dtype, "on_card": on_card(x)}


def grouped(lists: Sequence[Sequence[Tensor | None]], with_indices: bool = False) -> dict[Any, Any]:
    """PyTorch's own groups of an optimiser's tensors, under the device that these claim to be on."""
    found = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)  # pyright: ignore
    groups: dict[Any, Any] = {}
    for (device, dtype), (tensors, indices) in found.items():
        first = next(each for each in tensors[0] if each is not None)
        groups[CARD if on_card(first) else device, dtype] = tensors, indices
    return groups
