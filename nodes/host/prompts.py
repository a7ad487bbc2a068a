"""Prompts as the conditions that the denoiser takes, encoded with the LoRAs' own text encoder parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.lora
import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import torch
from torch import Tensor

from ...duolora_core.errors import ModelMismatchError
from ...duolora_core.lora.folded import FoldedLora
from ...duolora_core.lora.low_rank import LowRank
from ...duolora_core.lora.save import kohya_state_dict


def clip_with(
    clip: Any, text: Mapping[str, LowRank], source: str, offsets: Mapping[tuple[str, str], Tensor] | None = None
) -> Any:
    """A clone of CLIP with a LoRA's text encoder part applied; CLIP itself where the LoRA has none.

    Raises:
        ModelMismatchError: the shape of a layer or of a 1-D change is not this CLIP's, or CLIP lacks the layer.
    """
    offsets = offsets or {}
    if not text and not offsets:
        return clip
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    weights = clip.cond_stage_model.state_dict()
    changes = [(key, "weight", (each.up.shape[0], each.down.shape[1])) for key, each in text.items()]
    changes += [(key, what, tuple(offset.shape)) for (key, what), offset in offsets.items()]
    for key, what, found in changes:
        changed = f"{known[key].removesuffix('weight')}{what}" if key in known else ""
        expected = tuple(weights[changed].shape) if changed in weights else None
        if expected != found:
            there = "has no such layer" if expected is None else f"has a {what} of shape {expected} there"
            raise ModelMismatchError(
                f"{source}: text encoder layer {key} changes a {what} of shape {found}, but the connected CLIP "
                f"{there}. Connect the CLIP of an SDXL checkpoint."
            )
    state = kohya_state_dict(FoldedLora({}, text, {}, {}, 0.0, offsets), torch.float32)
    return comfy.sd.load_lora_for_models(None, clip, state, 0.0, 1.0)[1]


def encode(clip: Any, prompt: str) -> list[Any]:
    """CONDITIONING of a prompt."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


def encode_alike(clip: Any, prompts: Sequence[str]) -> list[list[Any]]:
    """CONDITIONING of each prompt, all with as many text states: shorter ones get empty chunks at their end.

    A chunk is what a text encoder reads at once, 75 tokens of a prompt; the host pads the last one of each itself.
    """
    empty = clip.tokenize("")
    tokens = [clip.tokenize(prompt) for prompt in prompts]
    longest = {key: max(len(each[key]) for each in tokens) for key in empty}
    return [
        clip.encode_from_tokens_scheduled(
            {key: [*chunks, *(empty[key] * (longest[key] - len(chunks)))] for key, chunks in each.items()}
        )
        for each in tokens
    ]


def condition(patcher: Any, conditioning: list[Any], latent: Tensor) -> dict[str, Any]:
    """What `apply_model` takes for one sample with this latent, (channels, h, w): text states, pooled text, sizes."""
    conds = comfy.sampler_helpers.convert_cond(conditioning[:1])
    device = patcher.load_device
    noise = torch.zeros(1, *latent.shape, device=device)
    encoded = comfy.samplers.encode_model_conds(patcher.model.extra_conds, conds, noise, device, "positive")
    conds = encoded[0]["model_conds"]
    return {
        key: _owned(cond.process_cond(batch_size=1, device=device, area=None), device) for key, cond in conds.items()
    }


def text_tokens(condition: Mapping[str, Any]) -> int:
    """How many text states a condition has; 77 for each part of a long prompt."""
    return int(condition["c_crossattn"].cond.shape[1])


def _owned(cond: Any, device: torch.device) -> Any:
    """The same cond with a tensor of its own on the device, usable in a backward pass."""
    if isinstance(cond.cond, Tensor):
        with torch.inference_mode(False):
            cond.cond = cond.cond.to(device, copy=True)
    return cond
