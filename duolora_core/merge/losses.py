"""The three losses of DuoLoRA as plain functions (sections 3.3.3 and 3.4 of arXiv 2504.13206)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..model.denoiser import add_noise
from .gates import Gates
from .roles import Role

PriorForm = Literal["diagonal", "vector"]


def cycle_latent(denoised: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The Constyle hop: a one-step x0 estimate, noised again with the same noise and sigma (Algorithm 3).

    In the paper's latents z' = z + √(1-ā)(n - eps); in the sigma parametrisation x' = x0_estimate + sigma · n.
    """
    return add_noise(denoised, noise, sigma)


def layer_prior_loss(
    gates: Gates,
    roles: Mapping[str, Role],
    form: PriorForm = "diagonal",
    sparsity: float = 0.1,
    rank_weight: float = 2.0,
) -> Tensor:
    """The rank constraint of the layer priors, mean over the layers that have a role and both LoRAs; shape ().

    With d the dominant role's gates of a layer and o the other's (equation 1, Algorithm 1 and Lemma 1):

    - `diagonal`: sparsity · ‖d‖₁ + rank_weight · max(0, ‖o‖₁ - ‖d‖₁). The nuclear norm of diag(m) is ‖m‖₁.
      rank_weight must exceed sparsity, else nothing is preferred.
    - `vector`: sparsity · ‖d‖₁ + rank_weight · (‖o‖₂ - ‖d‖₂), the authors' code: the nuclear norm of a one-column
      matrix is ‖·‖₂, and there is no hinge.
    """
    layers = [
        (roles[name], slot)
        for name, slot in gates.slots.items()
        if roles[name] != "neutral" and slot.content_rank and slot.style_rank
    ]
    if not layers:
        return gates.values.sum() * 0.0
    dominant = _padded(gates.values, [slot.content if role == "content" else slot.style for role, slot in layers])
    other = _padded(gates.values, [slot.style if role == "content" else slot.content for role, slot in layers])
    length = dominant.abs().sum(1)  # (layers,)
    if form == "diagonal":
        excess = torch.relu(other.abs().sum(1) - length)
    else:
        excess = torch.linalg.vector_norm(other, dim=1) - torch.linalg.vector_norm(dominant, dim=1)
    return (sparsity * length + rank_weight * excess).mean()


def _padded(values: Tensor, places: Sequence[slice]) -> Tensor:
    """Each place of a vector as one row, filled up with zeros, (places, longest).

    One gather for all layers: layer by layer, SDXL's prior would be some 19,000 kernels a step on a GPU.
    """
    starts = torch.tensor([place.start for place in places], device=values.device)
    lengths = torch.tensor([place.stop - place.start for place in places], device=values.device)
    column = torch.arange(max(place.stop - place.start for place in places), device=values.device)
    zero = len(values)  # where a zero is put behind the last value
    index = torch.where(column < lengths[:, None], starts[:, None] + column, zero)
    return torch.cat([values, values.new_zeros(1)])[index]
