"""The checkpoint's own weights, as they were before any patch, for adapters whose change depends on them."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...duolora_core.lora.match import BaseWeight


def base_weights(patcher: Any, clip: Any | None) -> BaseWeight:
    """The weight or bias of a layer of MODEL's UNet or of CLIP, see `BaseWeight`, in float32 on the CPU.

    Asked for a weight, it raises the host's own interrupt exception when the artist pressed Cancel, since a whole file
    takes up to a minute.

    Args:
        clip: None where there is none; no text-encoder layer has a weight then
    """
    encoders = {} if clip is None else comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    encoder = None if clip is None else clip.patcher
    unet = {
        (name if what == "weight" else f"{name}.{what}"): f"diffusion_model.{name}.{what}"
        for name, module in patcher.model.diffusion_model.named_modules()
        for what in ("weight", "bias")
        if getattr(module, what, None) is not None
    }

    def weight(name: str) -> Tensor | None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        layer = name.removesuffix(".bias")
        if layer in encoders:
            key = encoders[layer]
            return _unpatched(encoder, key if layer == name else f"{key.removesuffix('weight')}bias")
        return _unpatched(patcher, unet[name]) if name in unet else None

    return weight


def _unpatched(patcher: Any, key: str) -> Tensor | None:
    """As in its file; None for a bias that is not there.

    Where patches are in force at this moment, the host keeps the original; the numbers of a quantised weight are known
    to the layer that holds it.
    """
    layer, _, name = key.rpartition(".")
    module = comfy.utils.get_attr(patcher.model, layer)
    if key in patcher.backup:
        held = patcher.backup[key].weight
    elif key in patcher.hook_backup:
        held = patcher.hook_backup[key][0]
    else:
        held = getattr(module, name, None)
    if held is None:
        return None
    convert = getattr(module, f"convert_{name}", None)
    if convert is not None:
        held = convert(held, inplace=False)
    if hasattr(held, "dequantize") and type(held) not in (Tensor, torch.nn.Parameter):
        held = held.dequantize()
    return held.detach().to("cpu", torch.float32, copy=True)
