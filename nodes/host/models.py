"""A LoRA state dict applied to MODEL and CLIP, the way the host's own loader does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.lora
import comfy.sd
from torch import Tensor

from ...duolora_core.errors import ModelMismatchError


def apply_lora(patcher: Any, clip: Any | None, state: Mapping[str, Tensor]) -> tuple[Any, Any | None]:
    """Patched clones of MODEL and CLIP (None stays None); the inputs are not changed.

    Raises:
        ModelMismatchError: a layer of the LoRA is not in this model or CLIP, or has another shape there.
    """
    unet = {key: value for key, value in state.items() if key.startswith("lora_unet_")}
    text = {key: value for key, value in state.items() if key not in unet}
    known = comfy.lora.model_lora_keys_unet(patcher.model, {})
    _require_shapes(unet, known, patcher.model.state_dict(), "model")
    if clip is not None and text:
        known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
        _require_shapes(text, known, clip.cond_stage_model.state_dict(), "CLIP")
    return comfy.sd.load_lora_for_models(patcher, clip, unet if clip is None else dict(state), 1.0, 1.0)


def _require_shapes(
    state: Mapping[str, Tensor], known: Mapping[str, str], weights: Mapping[str, Tensor], what: str
) -> None:
    for key, up in state.items():
        if not key.endswith(".lora_up.weight"):
            continue
        layer = key.removesuffix(".lora_up.weight")
        down = state[f"{layer}.lora_down.weight"]
        expected = tuple(weights[known[layer]].shape) if layer in known else None
        if expected is None or (expected[0], expected[1:]) != (up.shape[0], tuple(down.shape[1:])):
            raise ModelMismatchError(
                f"The merged LoRA changes {layer} of shape {(up.shape[0], *down.shape[1:])}, but this {what} has "
                f"{expected or 'no such layer'}. Apply it to a checkpoint of the family that it was merged on."
            )
