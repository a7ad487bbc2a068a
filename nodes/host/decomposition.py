"""Where adapters that are not low-rank by themselves are decomposed."""

from __future__ import annotations

from typing import Any

import comfy.model_management as management
import torch

from ...duolora_core.lora.adapters import CPU

_COPIES = 6
"""Of a layer's weight in float32, at most, that a decomposition holds at once."""


def decomposition_device(patcher: Any) -> torch.device:
    """MODEL's own graphics card, with room made there for its largest layer; the CPU where it has none.

    PyTorch has a QR decomposition of its own for NVIDIA's and AMD's cards. Apple's, Intel's and DirectML's devices
    would hand each matrix to the CPU, one after another, which then works faster by itself.
    """
    device = patcher.load_device
    if device.type != "cuda":
        return CPU
    largest = max(weight.numel() for weight in patcher.model.diffusion_model.parameters())
    management.free_memory(_COPIES * largest * torch.float32.itemsize, device)
    return device
