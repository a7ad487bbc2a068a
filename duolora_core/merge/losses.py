"""The objective of a merge, all of it (sections 3.3.3 and 3.4 and Algorithm 3 of arXiv 2504.13206).

    L = λ_rec · (MSE[m(x_c, p_c), c(x_c, p_c)] + MSE[m(x_s, p_s), s(x_s, p_s)])      `reconstruction`
      + λ_cyc · (the content picture sent through the style LoRA and back, and the    `cycle_by_teachers` or
                 style picture sent through the content LoRA and back)                `cycle_through_merge`
      + λ_prior · the rank constraint of the layers that have a role                  `layer_prior`

m is the merge, c and s are a content and a style LoRA alone, all of them branches of one attached model; what they
predict, eps or v, is compared. Of several LoRAs on a side one stands for all in a step, and its reconstruction counts
for as many: over the steps every LoRA has the same weight. x_c = picture + sigma · noise; p_c, p_s are each LoRA's own
prompt. No gradient passes through c and s: their outputs are targets of the students, m. `students` puts the first two
lines together, `model.evaluate.backward` sums λ · MSE over them, and `trainer` adds the third.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..model.branches import Branch
from ..model.denoiser import Prediction, add_noise, model_output
from ..model.evaluate import Sample, Target
from .config import MergeConfig, PriorForm
from .gates import Gates
from .roles import Role

Student = tuple[Sample, list[Target]]
"""A sample of the merge, and what it should put out."""

Teach = Callable[[Sequence[Sample]], Sequence[Tensor]]
"""The x0 estimates of samples of the single LoRAs, without gradient."""


@dataclass(frozen=True)
class NoisyPicture:
    """One picture of a step: x = latent + sigma · noise, (channels, h, w), and the conditions of its two prompts.

    Attributes:
        branch: of its LoRA alone
        share: how many LoRAs it stands for, over the mean of both sides
    """

    x: Tensor
    noise: Tensor
    own: Any
    combined: Any
    branch: Branch
    share: float = 1.0


@dataclass(frozen=True)
class Penalty:
    """A loss term that needs no network: its name in the reports, its weight, and the function, () in the gates."""

    term: str
    weight: float
    loss: Callable[[Gates], Tensor]


def students(
    content: NoisyPicture, style: NoisyPicture, sigma: Tensor, prediction: Prediction, config: MergeConfig, teach: Teach
) -> list[Student]:
    """Which samples of the merge are compared with what, at which weights.

    Args:
        sigma: (), of both pictures
        teach: asked once for the reconstruction and the first hop of the cycle, and once more for the second hop
    """
    asked = [Sample(content.branch, content.x, content.own), Sample(style.branch, style.x, style.own)]
    if config.cycle_weight != 0:  # the first hop: each picture through the other LoRA, under the combined prompt
        asked += [
            Sample(style.branch, content.x, content.combined),
            Sample(content.branch, style.x, style.combined),
        ]
    alone_c, alone_s, *infused = teach(asked)
    found = reconstruction(
        (content, model_output(content.x, alone_c, sigma, prediction)),
        (style, model_output(style.x, alone_s, sigma, prediction)),
        config.reconstruction_weight,
    )
    if config.cycle_weight == 0:
        return found
    hops = add_noise(infused[0], content.noise, sigma), add_noise(infused[1], style.noise, sigma)
    if config.cycle_route == "authors":
        second_hop = [Sample(style.branch, hops[0], content.own), Sample(content.branch, hops[1], style.own)]
        outputs = [model_output(hop, x0, sigma, prediction) for hop, x0 in zip(hops, teach(second_hop), strict=True)]
        return cycle_by_teachers(found, outputs, config.cycle_weight)
    return cycle_through_merge(found, hops, config.cycle_weight)


def reconstruction(
    content: tuple[NoisyPicture, Tensor], style: tuple[NoisyPicture, Tensor], weight: float
) -> list[Student]:
    """MSE[m(x_c, p_c), c(x_c, p_c)] and MSE[m(x_s, p_s), s(x_s, p_s)] (Algorithm 3, ε_cc and ε_ss).

    Args:
        content, style: a picture, and what its own LoRA alone puts out for it under its own prompt
    """
    pairs = (("reconstruction_content", *content), ("reconstruction_style", *style))
    return [
        (Sample("merge", each.x, each.own), [Target(term, weight * each.share, output)]) for term, each, output in pairs
    ]


def cycle_by_teachers(reconstructed: Sequence[Student], outputs: Sequence[Tensor], weight: float) -> list[Student]:
    """The authors' route: MSE[m(x_c, p_c), s(x_c', p_c)] and MSE[m(x_s, p_s), c(x_s', p_s)] (section 3.4).

    x' is the picture after the first hop, x' = x0 estimate + sigma · n with the same noise and sigma (Algorithm 3; in
    the paper's latents z' = z + √(1-ā)(n - eps)); the second one leads back under the picture's own prompt.
    The paper's literal loss compares two frozen LoRAs, so that no gradient reaches the gates; the authors' code, as
    here, compares the merge.

    Args:
        outputs: of the second hop, s(x_c', p_c) and c(x_s', p_s)
    """
    terms = zip(reconstructed, ("cycle_style", "cycle_content"), outputs, strict=True)
    return [(sample, [*targets, Target(term, weight, output)]) for (sample, targets), term, output in terms]


def cycle_through_merge(reconstructed: Sequence[Student], hops: Sequence[Tensor], weight: float) -> list[Student]:
    """The differentiable route: MSE[m(x_c', p_c), c(x_c, p_c)] and MSE[m(x_s', p_s), s(x_s, p_s)] (section 3.4).

    The second hop goes through the merge, which is to come back to what the picture's own LoRA makes of it.

    Args:
        hops: x_c' and x_s', see `cycle_by_teachers`
    """
    terms = zip(reconstructed, ("cycle_style", "cycle_content"), hops, strict=True)
    back = [
        (Sample("merge", hop, sample.condition), [Target(term, weight, targets[0].output)])
        for (sample, targets), term, hop in terms
    ]
    return [*reconstructed, *back]


def layer_prior(roles: Mapping[str, Role], config: MergeConfig) -> Penalty:
    """The third line of the objective (section 3.3.3)."""
    loss = partial(
        layer_prior_loss,
        roles=roles,
        form=config.prior_form,
        sparsity=config.sparsity,
        rank_weight=config.rank_weight,
    )
    return Penalty("layer_prior", config.layer_prior_weight, loss)


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
