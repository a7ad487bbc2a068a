"""Content-Style Slider and Block Probe: what is adjusted after training, without training again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core import UNetLayout, layer_roles
from ..duolora_core.errors import SettingsError
from ..duolora_core.merge.block_weights import BlockWeights, Side, scale_blocks, slider_strengths, strength_share
from ..duolora_core.merge.roles import PriorPreset, Role
from .host.denoiser import require_sdxl, unet_layout
from .host.models import apply_lora
from .run.merge_result import MergeResult, ordinary_lora
from .ui.schema import schema
from .ui.sockets import MergedSocket
from .ui.widgets import strength_input

CHOICES: dict[str, Role | None] = {"content blocks": "content", "style blocks": "style", "blocks by name": None}


class ContentStyleSlider(io.ComfyNode):
    """Both strengths on one slider."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ContentStyleSlider",
            search_aliases=["duolora", "content style balance", "style slider", "strength"],
            inputs=[
                io.Model.Input("model"),
                MergedSocket.Input("merged"),
                io.Float.Input(
                    "balance",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                ),
                io.Clip.Input("clip", optional=True),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model"),
                io.Clip.Output("clip_out", display_name="clip"),
            ],
        )

    @classmethod
    def execute(cls, model: Any, merged: MergeResult, balance: float, clip: Any = None) -> io.NodeOutput:
        lora = ordinary_lora(merged.merged, *slider_strengths(balance))
        return io.NodeOutput(*apply_lora(model, clip, lora))


class BlockProbe(io.ComfyNode):
    """Turns some blocks of a merge up or down, to see what they carry (the paper's Fig. 3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockProbe",
            search_aliases=["duolora", "block weight", "lora block", "per-block strength"],
            inputs=[
                io.Model.Input("model"),
                MergedSocket.Input("merged"),
                io.Combo.Input("blocks", options=list(CHOICES), default="style blocks"),
                strength_input("alpha"),
                strength_input("elsewhere"),
                io.Combo.Input("lora", options=list(get_args(Side)), default="both"),
                io.Combo.Input(
                    "layer_prior",
                    options=[preset for preset in get_args(PriorPreset) if preset != "none"],
                    default="resolution",
                ),
                io.String.Input("block_names", default="", placeholder="up_blocks.0.attentions.1, mid_block"),
                io.Clip.Input("clip", optional=True),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model"),
                io.Clip.Output("clip_out", display_name="clip"),
                MergedSocket.Output("merged_out", display_name="merged"),
                io.String.Output("info"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        merged: MergeResult,
        blocks: str,
        alpha: float,
        elsewhere: float,
        lora: Side,
        layer_prior: str,
        block_names: str,
        clip: Any = None,
    ) -> io.NodeOutput:
        require_sdxl(model)
        layout = unet_layout(model.model)
        chosen = _chosen(layout, blocks, layer_prior, block_names)
        turned = scale_blocks(merged.merged, BlockWeights(chosen, alpha, elsewhere, lora))
        names = list(
            dict.fromkeys(layout.layers[name].block.diffusers for name in merged.merged.names if name in chosen)
        )
        info = f"{', '.join(names) or 'no block that this merge changes'}: times {alpha:g}, all others {elsewhere:g}"
        shares = [f"{strength_share(merged.merged, chosen, side):.0%} of the {side}" for side in ("content", "style")]
        recipe = {"blocks": names, "alpha": alpha, "elsewhere": elsewhere, "lora": lora}
        result = replace(
            merged,
            merged=replace(turned, recipe={**turned.recipe, "turned": recipe}),
            notes=[*merged.notes, info],
            stack=None,  # the masks are still those of the merge as it was trained
            gates=None,
        )
        text = f"{info}\nBefore, {' and '.join(shares)} lay in the chosen blocks (shares of the squared norm)."
        return io.NodeOutput(*apply_lora(model, clip, ordinary_lora(turned, 1.0, 1.0)), result, text)


def _chosen(layout: UNetLayout, blocks: str, layer_prior: str, block_names: str) -> frozenset[str]:
    """The layers of the chosen blocks.

    Raises:
        SettingsError: no block is named, or this model has no block of that name.
    """
    role = CHOICES[blocks]
    if role is None:
        named = [name.strip() for name in block_names.replace("\n", ",").split(",") if name.strip()]
        if not named:
            raise SettingsError("Write the blocks to turn into block_names, for instance up_blocks.0.attentions.1.")
        role, layer_prior = "content", ", ".join(f"{name}=content" for name in named)
    return frozenset(name for name, found in layer_roles(layout, layer_prior).items() if found == role)
