"""A world's UNet as diffusers' own class, for whoever wants to try another method of that ecosystem on the world.

    unet = as_diffusers(load_model())
    states, pooled = model.text(prompts)
    output = unet(scaled, timesteps, states, added_cond_kwargs=added_conditions(pooled)).sample

That is `WordModel.output` of the latent x / √(1 + sigma²): v in the shapes world, x0 in the art world.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.word_model import WordModel


def as_diffusers(model: WordModel) -> UNet2DConditionModel:
    """A copy of the UNet, frozen; the names are those of the layout."""
    config = model.unet.config
    with_attention = [any(depths) for depths in config.down_depths]
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    settings: dict[str, Any] = {  # its annotations allow tuples of one length only
        "sample_size": 16,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in with_attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(with_attention)),
        "transformer_layers_per_block": tuple(max(depths[0], 1) for depths in config.down_depths),
        "layers_per_block": len(config.down_depths[0]),
        "cross_attention_dim": config.context,
        "attention_head_dim": tuple(width // config.head for width in widths),  # despite its name, how many heads
        "use_linear_projection": True,
        "norm_num_groups": config.groups,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (config.pooled - config.context) // 6,  # of each of the six sizes
        "projection_class_embeddings_input_dim": config.pooled,
    }
    unet = UNet2DConditionModel(**settings)
    # It always makes the middle block as deep as the lowest level, and has no setting for another depth.
    middle = unet.get_submodule("mid_block.attentions.0.transformer_blocks")
    assert isinstance(middle, nn.ModuleList)
    assert config.mid_depth is not None
    del middle[config.mid_depth :]
    names = {name: layer.diffusers for name, layer in model.layout.layers.items()}
    state = {
        f"{names[layer]}.{kind}": value
        for layer, _, kind, value in ((*key.rpartition("."), value) for key, value in model.unet.state_dict().items())
    }
    unet.load_state_dict(state)  # strict: every name is there, and no other
    return unet.eval().requires_grad_(False)


def added_conditions(pooled: Tensor) -> dict[str, Tensor]:
    """What goes beside the text states: (batch, width) pooled text, and the sizes of an uncropped 128 x 128 picture."""
    side = 128.0
    sizes = pooled.new_tensor([side, side, 0.0, 0.0, side, side])
    return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
