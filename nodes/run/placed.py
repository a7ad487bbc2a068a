"""Loaded LoRAs on one model: where a merge, Load Masks and the baselines begin.

A training goes back through the factors that are made here. So they are made outside of the inference mode in which the
host runs nodes, whose tensors autograd refuses. What nodes make otherwise may be such tensors, as the host's own are.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from ...duolora_core import LoraPair, LoraStack, PlacedLora, make_stack, match_to_model
from ...duolora_core.errors import SettingsError
from ...duolora_core.files.sanitize import listed
from ...duolora_core.lora.adapters import CPU, PlainLora
from ...duolora_core.merge.stack import Basis
from ..host.base_weights import base_weights
from ..host.decomposition import decomposition_device
from ..host.denoiser import require_sdxl, unet_layout
from .loaded_lora import LoadedLora

_MOST_LAYERS = 100
"""Whose loss a recipe names; it is read again with every masks file, and bounded there."""


def placed_pair(model: Any, clip: Any | None, content: LoadedLora, style: LoadedLora, what: str) -> LoraPair:
    """`placed_stack` of two LoRAs, for what takes no more; `what` names it in the error."""
    stack = placed_stack(model, clip, content, style)
    if len(stack.loras) != 2:
        raise SettingsError(
            f"{what} merges one content and one style LoRA, but {len(stack.contents)} and {len(stack.styles)} are "
            "connected. Disconnect the loaders' others inputs, or choose what merges any number."
        )
    return LoraPair(stack.layout, stack.contents, stack.styles, stack.basis)


@torch.inference_mode(False)
def placed_stack(
    model: Any, clip: Any | None, content: LoadedLora, style: LoadedLora, basis: Basis = "factors"
) -> LoraStack:
    """All loaded LoRAs placed on a MODEL's UNet, as they are in their files unless another basis is asked for.

    Args:
        content, style: each with its chain of others
        clip: for adapters of text encoders whose change depends on the checkpoint's own weights

    Raises:
        DuoLoraError: the loaders are swapped, the model is not of the SDXL family, a LoRA does not fit it, or there are
            too many.
    """
    for socket, lora in (("content", content), ("style", style)):
        if lora.role != socket:
            raise SettingsError(f"A {lora.role} LoRA is connected to the {socket} input. Swap the two loaders.")
    require_sdxl(model)
    layout = unet_layout(model.model)
    weights = base_weights(model, clip)
    odd = any(each.file.kinds.keys() - {PlainLora.kind} for each in (*content.chain, *style.chain))
    device = decomposition_device(model) if odd else CPU
    contents, styles = (
        [
            match_to_model(each.file, layout, each.strength, weights, each.adapter_rank, each.text_strength, device)
            for each in side.chain
        ]
        for side in (content, style)
    )
    return make_stack(contents, styles, layout, basis)


@torch.inference_mode(False)
def in_basis(stack: LoraStack, basis: Basis) -> LoraStack:
    """The same LoRAs in another basis."""
    return make_stack(stack.contents, stack.styles, stack.layout, basis)


def lora_note(role: str, lora: PlacedLora) -> str:
    """One line on what was used of a LoRA."""
    return f"{role}: {lora.file.name}, {len(lora.layers)} UNet and {len(lora.text)} text encoder layers"


def approximation_notes(lora: PlacedLora) -> list[str]:
    """What became of adapters that are not low-rank by themselves, and what was lost in all and in the worst layers."""
    found = lora.approximations
    if not found:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in found.values()).items())
    ranks = sorted(each.rank for each in found.values())
    lines = [
        f"{lora.file.name}: {kinds} layers became plain LoRA of rank {ranks[0]} to {ranks[-1]}, "
        f"{lora.lost:.2%} of their energy is lost"
    ]
    for why, count in Counter(each.by_cpu for each in found.values() if each.by_cpu).items():
        lines.append(f"  {count} of them on the CPU, since the graphics card could not ({why}): as good, but slower")
    worst = sorted(found.items(), key=lambda each: -each[1].lost)[:3]
    lines += [f"  {name}: rank {each.rank}, lost {each.lost:.1%}" for name, each in worst if each.lost > 0.01]
    if lora.lost > 0.05:
        lines.append(
            f"WARNING: more than 5 % of {lora.file.name} is lost. Raise adapter_rank on its loader: the largest "
            f"rank is {ranks[-1]}."
        )
    return lines


def approximation_recipe(lora: PlacedLora) -> dict[str, Any]:
    """The same for a merge's recipe, as plain JSON data; nothing for a LoRA that is low-rank as it is.

    The loss of each layer is there where it rounds to a thousandth, of the hundred worst at most.
    """
    found = lora.approximations
    if not found:
        return {}
    kinds = Counter(each.kind for each in found.values())
    ranks = [each.rank for each in found.values()]
    losses = {name: round(each.lost, 3) for name, each in found.items()}
    worst = sorted((name for name in losses if losses[name]), key=lambda name: -losses[name])[:_MOST_LAYERS]
    return {
        "approximated": {
            "kinds": dict(kinds),
            "largest_rank": max(ranks),
            "lost_energy": round(lora.lost, 6),
            "lost_by_layer": {name: losses[name] for name in worst},
        }
    }


def coverage_notes(stack: LoraStack) -> list[str]:
    """How far the LoRAs overlap, and what was skipped and why."""
    covered = [sum(rank > 0 for rank in stack.ranks(name)) for name in stack.names]
    by = "both LoRAs" if len(stack.loras) == 2 else "more than one LoRA"
    lines = [f"{sum(count > 1 for count in covered)} of {len(covered)} layers are covered by {by}"]
    for lora in stack.loras:
        lines += approximation_notes(lora)
        lines += listed(f"skipped {key} of {lora.file.name}: {reason}" for key, reason in lora.skipped.items())
    return lines
