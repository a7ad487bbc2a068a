"""The art world's UNet in diffusers: the same network, plain and with a LoRA folded in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from benchmarks.art_world.model import ArtModel, Prompt
from benchmarks.as_diffusers import added_conditions, as_diffusers
from benchmarks.shapes_world.applied import applied
from duolora_core import kohya_state_dict, lora_from_tensors, match_to_model
from duolora_core.lora.folded import unet_part
from random_world import random_lora, random_weights

PROMPTS = [Prompt(0, 1, 2), Prompt(14, None, 3), Prompt(None, 9, None), Prompt()]


@pytest.fixture(scope="module")
def model() -> ArtModel:
    return random_weights(ArtModel())


@torch.no_grad()
def outputs(model: ArtModel, theirs: UNet2DConditionModel) -> tuple[Tensor, Tensor]:
    """v of both for four noise levels and prompts, each (4, 48, 16, 16)."""
    timesteps = torch.tensor([0, 130, 700, 999])
    sigma = model.sigmas[timesteps]
    scaled = torch.randn(len(PROMPTS), 48, 16, 16, generator=torch.Generator().manual_seed(1))
    states, pooled = model.text(PROMPTS)
    ours = model.output(scaled * (1 + sigma.square()).sqrt().view(-1, 1, 1, 1), sigma, PROMPTS)
    other: Any = theirs(scaled, timesteps, states, added_cond_kwargs=added_conditions(pooled), return_dict=False)
    return ours, other[0]


def test_the_world_is_a_diffusers_unet_with_and_without_a_lora(model: ArtModel) -> None:
    theirs = as_diffusers(model)
    ours, other = outputs(model, theirs)
    assert (ours - other).abs().max() < 1e-5 * ours.abs().max()
    assert (ours[0] - ours[1]).abs().max() > 0.1 * ours.abs().max()

    folded = unet_part(
        match_to_model(lora_from_tensors(random_lora(model, 4, seed=1), "random"), model.layout), model.layout
    )
    saved = kohya_state_dict(folded, torch.float32)
    converted: Any = StableDiffusionXLPipeline.lora_state_dict(dict(saved), unet_config=theirs.config)
    StableDiffusionXLPipeline.load_lora_into_unet(converted[0], network_alphas=converted[1], unet=theirs)
    with applied(model, folded):
        changed, theirs_changed = outputs(model, theirs)
    assert (changed - ours).abs().max() > 0.05 * ours.abs().max()
    assert (changed - theirs_changed).abs().max() < 1e-4 * ours.abs().max()
