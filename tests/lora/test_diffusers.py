"""The files that we save, read by diffusers; and our plain UNet against diffusers' own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

from benchmarks.ldm_unet import UNet, UNetConfig
from duolora_core import LowRank, kohya_state_dict
from duolora_core.lora.folded import FoldedLora
from duolora_core.lora.save import without_what_diffusers_refuses
from tiny import layout

CONFIG = UNetConfig(
    channels=32,
    multipliers=(1, 2, 4),
    down_depths=((0, 0), (1, 1), (2, 2)),
    mid_depth=2,
    up_depths=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    context=24,
    pooled=20 + 6 * 8,
    head=8,
    groups=8,
)


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def theirs(unet: UNet) -> UNet2DConditionModel:
    """diffusers' UNet with the same weights, named by our layout."""
    settings: dict[str, Any] = {  # its annotations allow tuples of one length only
        "sample_size": 16,
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "layers_per_block": 2,
        "cross_attention_dim": CONFIG.context,
        "attention_head_dim": (4, 8, 16),
        "use_linear_projection": True,
        "norm_num_groups": CONFIG.groups,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": CONFIG.pooled,
    }
    model = UNet2DConditionModel(**settings)
    names = {name: layer.diffusers for name, layer in layout(CONFIG).layers.items()}
    state = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in unet.state_dict().items()}
    model.load_state_dict(state)  # strict: every name is there, and no other
    return model.eval().requires_grad_(False)


def outputs(ours: UNet, theirs: UNet2DConditionModel) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    timesteps = torch.tensor([3, 700])
    context = torch.randn(2, 5, CONFIG.context, generator=generator)
    pooled = torch.randn(2, 20, generator=generator)
    sizes = torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]] * 2)
    embedded = theirs.add_time_proj(sizes.flatten()).view(2, -1)
    with torch.no_grad():
        mine = ours(x, timesteps, context, torch.cat([pooled, embedded], dim=1))
        other: Any = theirs(
            x, timesteps, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}, return_dict=False
        )
    return mine, other[0]


def test_the_plain_unet_is_diffusers(unet: UNet, theirs: UNet2DConditionModel) -> None:
    mine, other = outputs(unet, theirs)
    assert (mine - other).abs().max() < 1e-5 * mine.abs().max()


NORM, Q = "input_blocks.4.1.transformer_blocks.0.norm1", "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
KOHYA, TOKENS = (
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding",
)


@pytest.mark.parametrize(
    "odd",
    [
        {"offsets": {(NORM, "weight"): torch.ones(64)}},
        {"offsets": {(Q, "bias"): torch.ones(64)}},
        {"text_offsets": {(KOHYA, "bias"): torch.ones(12)}},
        {"text": {TOKENS: LowRank(torch.ones(99, 2), torch.ones(2, 12))}},
    ],
    ids=["norm", "bias", "text bias", "token embedding"],
)
def test_what_diffusers_refuses_can_be_left_out(odd: dict[str, Any], theirs: UNet2DConditionModel) -> None:
    """With it no layer arrives, without it all do: the day diffusers takes it, this says so."""
    layers = {Q: LowRank(torch.ones(64, 2), torch.ones(2, 64))}
    shapes = {name: layout(CONFIG).layers[name].shape for name in (Q, NORM)}
    kohya = {KOHYA: LowRank(torch.ones(12, 2), torch.ones(2, 12))}
    whole = FoldedLora(layers, kohya, {}, shapes, 0.0)
    whole = replace(whole, **{**odd, "text": {**kohya, **odd.get("text", {})}})
    reduced, left_out = without_what_diffusers_refuses(whole)
    assert left_out == 1
    assert arrived(reduced, theirs)
    assert not arrived(whole, theirs)


def arrived(lora: FoldedLora, theirs: UNet2DConditionModel) -> bool:
    """Whether diffusers gives the LoRA's one layer to its UNet."""
    try:
        converted: Any = StableDiffusionXLPipeline.lora_state_dict(kohya_state_dict(lora), unet_config=theirs.config)
        StableDiffusionXLPipeline.load_lora_into_unet(converted[0], network_alphas=converted[1], unet=theirs)
    except ValueError as error:
        assert "not been correctly renamed" in str(error)
        return False
    found = any("lora_A" in name for name, _ in theirs.named_parameters())
    if found:
        theirs.unload_lora()
    return found


def test_diffusers_loads_our_file(unet: UNet, theirs: UNet2DConditionModel) -> None:
    """Attention, feed-forward, projections and convolutions, ranks differing by layer: the same network afterwards.

    Ranks that differ are the point: with an alpha of its own per layer, diffusers ignores some of them.
    """
    table = layout(CONFIG)
    generator = torch.Generator().manual_seed(2)
    layers: dict[str, LowRank] = {}
    for i, (name, layer) in enumerate(table.layers.items()):
        if len(layer.shape) < 2 or layer.block.part == "other":
            continue
        rank, inputs = 2 + i % 3, int(torch.Size(layer.shape[1:]).numel())
        up, down = (
            torch.randn(layer.shape[0], rank, generator=generator),
            torch.randn(rank, inputs, generator=generator),
        )
        layers[name] = LowRank(up * 0.05, down * 0.05)
    shapes = {name: table.layers[name].shape for name in layers}
    saved = kohya_state_dict(FoldedLora(layers, {}, {}, shapes, 0.0), torch.float32)

    converted: Any = StableDiffusionXLPipeline.lora_state_dict(dict(saved), unet_config=theirs.config)
    StableDiffusionXLPipeline.load_lora_into_unet(converted[0], network_alphas=converted[1], unet=theirs)

    plain = outputs(unet, theirs)[0]
    for name, low_rank in layers.items():
        weight = unet.get_submodule(name).get_parameter("weight")
        weight += low_rank.delta().view(weight.shape)
    try:
        mine, other = outputs(unet, theirs)
    finally:
        for name, low_rank in layers.items():
            weight = unet.get_submodule(name).get_parameter("weight")
            weight -= low_rank.delta().view(weight.shape)
    assert (mine - plain).abs().max() > 0.05 * plain.abs().max()
    assert (mine - other).abs().max() < 1e-4 * mine.abs().max()
