"""The device's memory as the host manages it: what is free, how a model gets there whole, what happens when it is full.

A training needs all weights on its device. Where the host streams weights in for each forward, the backward would hold
on to every copy; and newer hosts reuse one buffer for all of them, so that the backward would find other weights there.
"""

from __future__ import annotations

import gc
from typing import Any

import comfy.model_management as management
import torch
from torch import nn

from ...duolora_core.errors import OutOfMemoryError
from ...duolora_core.model.memory import out_of_memory
from ...duolora_core.model.memory.attention import Scores
from ...duolora_core.model.memory.estimate import SLACK, WORKSPACES, Estimate, MemoryPlan, Storage, fits

GB = 2**30  # as the host, drivers and task managers count


def storage(patcher: Any) -> Storage:
    """How a MODEL is held once it is loaded."""
    network = patcher.model.diffusion_model
    compute = patcher.get_model_object("manual_cast_dtype") or patcher.model_dtype()
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    casts = any(weight.dtype != compute or type(weight) is not nn.Parameter for weight in weights)
    scores = attention_scores(patcher.load_device, compute, network.num_head_channels)
    return Storage(patcher.model_size(), compute.itemsize, casts, scores)


def attention_scores(device: torch.device, dtype: torch.dtype, head_channels: int) -> Scores | None:
    """What PyTorch's attention holds on this device; None: it has a fused kernel with a backward for it.

    The CPU has one; CUDA and ROCm are asked. Apple's and Intel's serve inference alone, as far as PyTorch tells.
    """
    if device.type == "cpu":
        return None
    cuda = torch.backends.cuda
    is_older = not hasattr(cuda, "fp16_bf16_reduction_math_sdp_allowed")  # than PyTorch 2.5
    if device.type == "cuda":
        q = torch.empty(1, 1, 128, head_channels, device=device, dtype=dtype, requires_grad=True)
        asked = cuda.SDPAParams(q, q, q, None, 0.0, False, *(() if is_older else (False,)))
        if cuda.can_use_flash_attention(asked) or cuda.can_use_efficient_attention(asked):
            return None
    stays = is_older or cuda.fp16_bf16_reduction_math_sdp_allowed()
    return Scores(head_channels, dtype.itemsize if stays else torch.float32.itemsize)


def free_memory(device: torch.device) -> int:
    """Bytes that a training may use there, less what the host reserves for other programs and libraries take."""
    return int(management.get_free_memory(device) - management.extra_reserved_memory() - workspaces(device))


def workspaces(device: torch.device) -> int:
    """Bytes that libraries take for themselves there."""
    return WORKSPACES if device.type == "cuda" else 0


def load_whole(patcher: Any, best: Estimate, least: Estimate) -> None:
    """Loads a MODEL completely, and has the host unload others until the best plan fits, as far as that goes.

    Raises:
        OutOfMemoryError: the weights do not fit into the device's memory, or the host was told to keep them out of it.
    """
    device = patcher.load_device
    total = management.get_total_memory(device)
    if least.total > total:
        raise OutOfMemoryError(
            f"Training needs about {least.total / GB:.1f} GB ({least.weights / GB:.1f} GB of them for the model), but "
            f"{device} has {total / GB:.1f} GB. Lower the resolution, or load the checkpoint with fp8 weights "
            "if it is not yet."
        )
    try:
        wanted = best.beside_weights * SLACK + workspaces(device)
        management.load_models_gpu([patcher], memory_required=wanted, force_full_load=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"The model's {best.weights / GB:.1f} GB do not fit into what is free on {device}. Close other programs "
            "that use the graphics card, or load the checkpoint with fp8 weights if it is not yet."
        ) from error
    require_whole(patcher.model.diffusion_model, device)


def require_whole(network: nn.Module, device: torch.device) -> None:
    """Refuses a model of which a part is elsewhere.

    Raises:
        OutOfMemoryError: names the first such weight.
    """
    for name, parameter in network.named_parameters():
        if parameter.device.type != device.type:
            raise OutOfMemoryError(
                f"The model cannot be trained in this state: {name} is on {parameter.device} instead of {device}. "
                "Start ComfyUI without --novram."
            )


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, as the host or the engine knows it.

    Newer hosts are asked first: where a CUDA error is sticky, their answer clears it as well.
    """
    is_oom = getattr(management, "is_oom", lambda error: isinstance(error, management.OOM_EXCEPTION))
    return is_oom(error) or out_of_memory.is_out_of_memory(error)


def release() -> None:
    """Gives back what a failed attempt held."""
    gc.collect()
    management.soft_empty_cache()


def plan_note(plan: MemoryPlan, needs: Estimate, free: int) -> str:
    """The plan in plain words, for the artist; `free` as it is with the model loaded."""
    activations = needs.beside_weights - needs.factors
    parts = f"{_gb(needs.weights)} model, {_gb(needs.factors)} LoRAs, {_gb(activations)} activations"
    short = "" if fits(needs, free) else ": this may not be enough"
    return f"{plan}: about {_gb(needs.total)} GB of {_gb(needs.weights + free)} GB free ({parts}){short}"


def _gb(size: int) -> str:
    return f"{size / GB:.1f}"
