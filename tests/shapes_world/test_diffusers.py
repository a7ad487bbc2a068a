"""The world's UNet in diffusers: the same network, plain and with a merged LoRA file of ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from benchmarks.as_diffusers import added_conditions, as_diffusers
from benchmarks.shapes_world.applied import applied
from benchmarks.shapes_world.model import Prompt, ShapesModel
from duolora_core import kohya_state_dict, lora_from_tensors, make_merged, make_pair, match_to_model, open_gates
from random_world import random_lora, random_world

PROMPTS = [Prompt(0, 1), Prompt(14, None), Prompt(None, 15), Prompt()]


@pytest.fixture(scope="module")
def model() -> ShapesModel:
    return random_world()


@pytest.fixture
def theirs(model: ShapesModel) -> UNet2DConditionModel:
    return as_diffusers(model)


@torch.no_grad()
def outputs(model: ShapesModel, theirs: UNet2DConditionModel) -> tuple[Tensor, Tensor]:
    """v of both for four noise levels and prompts, each (4, 12, 16, 16)."""
    timesteps = torch.tensor([0, 130, 700, 999])
    sigma = model.sigmas[timesteps]
    scaled = torch.randn(len(PROMPTS), 12, 16, 16, generator=torch.Generator().manual_seed(1))
    states, pooled = model.text(PROMPTS)
    ours = model.output(scaled * (1 + sigma.square()).sqrt().view(-1, 1, 1, 1), sigma, PROMPTS)
    other: Any = theirs(scaled, timesteps, states, added_cond_kwargs=added_conditions(pooled), return_dict=False)
    return ours, other[0]


def test_the_world_is_a_diffusers_unet(model: ShapesModel, theirs: UNet2DConditionModel) -> None:
    ours, other = outputs(model, theirs)
    assert (ours - other).abs().max() < 1e-5 * ours.abs().max()
    assert (ours[0] - ours[1]).abs().max() > 0.1 * ours.abs().max()


def test_a_merged_file_changes_both_alike(model: ShapesModel, theirs: UNet2DConditionModel) -> None:
    concepts = [
        match_to_model(lora_from_tensors(random_lora(model, rank, seed=rank), f"rank {rank}"), model.layout)
        for rank in (8, 4)
    ]
    pair = make_pair(concepts[0], concepts[1], model.layout)
    gates = open_gates(pair)
    gates.values = torch.rand(gates.values.shape, generator=torch.Generator().manual_seed(2))
    folded = make_merged(pair, gates).fold()
    saved = kohya_state_dict(folded, torch.float32)

    converted: Any = StableDiffusionXLPipeline.lora_state_dict(dict(saved), unet_config=theirs.config)
    StableDiffusionXLPipeline.load_lora_into_unet(converted[0], network_alphas=converted[1], unet=theirs)
    plain, changed = outputs(model, theirs)
    with applied(model, folded):
        ours, other = outputs(model, theirs)
    assert (plain - changed).abs().max() > 0.05 * plain.abs().max()
    assert (ours - other).abs().max() < 1e-4 * ours.abs().max()
