"""The three losses of DuoLoRA as plain functions (sections 3.3.3 and 3.4 of arXiv 2504.13206)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from .denoiser import noised
from .gates import Gates
from .layer_priors import Role

PriorForm = Literal["diagonal", "vector"]


def cycle_latent(denoised: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The Constyle hop: a one-step x0 estimate, noised again with the same noise and sigma (Algorithm 3).

    In the paper's latents z' = z + √(1-ā)(n - eps); in the sigma parametrisation x' = x0_estimate + sigma · n.
    """
    return noised(denoised, noise, sigma)


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
    terms: list[Tensor] = []
    for name, slot in gates.slots.items():
        role = roles[name]
        if role == "neutral" or slot.content_rank == 0 or slot.style_rank == 0:
            continue
        content, style = gates.content(name), gates.style(name)
        dominant, other = (content, style) if role == "content" else (style, content)
        if form == "diagonal":
            excess = torch.relu(other.abs().sum() - dominant.abs().sum())
        else:
            excess = torch.linalg.vector_norm(other) - torch.linalg.vector_norm(dominant)
        terms.append(sparsity * dominant.abs().sum() + rank_weight * excess)
    return torch.stack(terms).mean() if terms else gates.values.sum() * 0.0
