"""A world's UNet in diffusers: the same network, plain and with a merged LoRA file of ours."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from benchmarks.as_diffusers import added_conditions, as_diffusers
from benchmarks.shapes_world.applied import applied
from benchmarks.word_model import WordModel
from duolora_core import kohya_state_dict, lora_from_tensors, make_merged, make_pair, match_to_model, open_gates
from random_world import random_lora
from word_world.both import World


@torch.no_grad()
def outputs(world: World, model: WordModel, theirs: UNet2DConditionModel) -> tuple[Tensor, Tensor]:
    """What both put out for four noise levels and prompts, each (4, channels, 16, 16)."""
    timesteps = torch.tensor([0, 130, 700, 999])
    sigma = model.sigmas[timesteps]
    shape = (len(world.prompts), world.module.CONFIG.in_channels, 16, 16)
    scaled = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    states, pooled = model.text(world.prompts)
    ours = model.output(scaled * (1 + sigma.square()).sqrt().view(-1, 1, 1, 1), sigma, world.prompts)
    other: Any = theirs(scaled, timesteps, states, added_cond_kwargs=added_conditions(pooled), return_dict=False)
    return ours, other[0]


def test_the_world_is_a_diffusers_unet_and_a_merged_file_changes_both_alike(world: World, model: WordModel) -> None:
    theirs = as_diffusers(model)
    plain, other = outputs(world, model, theirs)
    assert (plain - other).abs().max() < 1e-5 * plain.abs().max()
    assert (plain[0] - plain[1]).abs().max() > 0.1 * plain.abs().max()

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
    with applied(model, folded):
        changed, other = outputs(world, model, theirs)
    assert (changed - plain).abs().max() > 0.05 * plain.abs().max()
    assert (changed - other).abs().max() < 1e-4 * changed.abs().max()
