"""What cross-attention reads of a prompt, taken from the model itself, so that each LoRA can be given its own.

A host turns a prompt into text states in its own way, with wrappers and patches of its own. The model itself knows:
whatever comes in at its cross-attention's keys and values is read there, once for each prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..model.denoiser import Denoiser
from ..model.hooks import Change, hooked_layers
from .trainable_lora import Side


def read_prompts(
    denoiser: Denoiser, latent: Tensor, joint: Any, own: Mapping[Side, Any]
) -> dict[Side, dict[str, Tensor]]:
    """{role: {layer: text states (1, tokens, width)}} of each role's own prompt.

    Three evaluations of the bare model; where all layers read the same states, they are kept once.

    Args:
        latent: (channels, h, w), any picture of the training
        joint: the condition under which the joint model is trained
        own: {role: condition of its own prompt}

    Raises:
        SettingsError: the prompts do not have as many tokens as the joint one, so keys of different prompts would not
            fit together.
    """
    whole = _read(denoiser, latent, joint)
    texts: dict[Side, dict[str, Tensor]] = {}
    for role, condition in own.items():
        texts[role] = _read(denoiser, latent, condition)
        for name, states in texts[role].items():
            if states.shape[1] != whole[name].shape[1]:
                raise SettingsError(
                    f"The {role} prompt has {states.shape[1]} tokens, the joint prompt {whole[name].shape[1]}: with "
                    "prompt separation all three must be of one length. Shorten the longest (75 words and signs are "
                    "one chunk), or lengthen the others."
                )
    return texts


def _read(denoiser: Denoiser, latent: Tensor, condition: Any) -> dict[str, Tensor]:
    names = [name for name in denoiser.layout.layers if name.endswith((".attn2.to_k", ".attn2.to_v"))]
    seen: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        before = next(reversed(seen.values()), x[:, :0])
        same = before.shape == x.shape and bool((before == x).all())
        seen[name] = before if same else x.detach().clone()
        return output

    changes: list[tuple[str, Change]] = [(name, partial(note, name)) for name in names]
    sigma = denoiser.sigmas[len(denoiser.sigmas) // 2].to(torch.float32)
    with torch.no_grad(), hooked_layers(denoiser.modules, changes):
        denoiser(latent[None].to(sigma), sigma[None], [condition])
    return seen
