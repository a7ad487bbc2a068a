"""Short trainings for the tests: a tiny pair, the settings, and what an optimiser was about to use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from duolora_core import Gates, MergeConfig, Picture, StepReport, attach, layer_roles, open_gates, train
from duolora_core.merge.config import CycleRoute
from gradients import gradients
from tiny import TinyDenoiser, layout, pick, picture
from worlds import World, world

LAYERS = pick(
    r"^(time_embed\.0|input_blocks\.3\.0\.op|out\.2"
    r"|input_blocks\.4\.1\.transformer_blocks\.0\.attn1\.to_q|middle_block\.0\.(in_layers\.2|emb_layers\.1)"
    r"|middle_block\.1\.transformer_blocks\.[01]\.attn2\.to_[kv]|output_blocks\.1\.1\.transformer_blocks\.0\.attn1\.to_v"
    r"|output_blocks\.4\.1\.transformer_blocks\.0\.ff\.net\.2)$"
)
ROLES = layer_roles(layout(), "resolution")
BOTH_WEIGHTED = MergeConfig(
    steps=1, clip=math.inf, cycle_weight=0.7, reconstruction_weight=0.9, layer_prior_weight=0.05, rank_weight=1.5
)
ROUTES: tuple[CycleRoute, ...] = ("authors", "differentiable")


def small_pair() -> World:
    """Layers of every kind; the first is the content LoRA's alone, the last the style LoRA's."""
    return world(LAYERS[:-1], LAYERS[1:], ranks=(3, 2))


@dataclass(frozen=True)
class Outcome:
    reports: list[StepReport]
    gradients: list[Tensor]
    gates: Gates


def trained(
    denoiser: TinyDenoiser,
    built: World,
    config: MergeConfig,
    gates: Gates | None = None,
    content: Sequence[Picture] = (picture(1),),
    style: Sequence[Picture] = (picture(2),),
) -> Outcome:
    gates = open_gates(built.pair) if gates is None else gates.copy()
    with gradients() as seen, attach(denoiser.modules, built.pair, gates) as gated:
        reports = list(train(denoiser, gated, content, style, ROLES, config))
    return Outcome(reports, seen, gates)
