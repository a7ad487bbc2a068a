"""ZipRank Merge: the trainer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.merge.config import FAST, MergeConfig
from ..duolora_core.merge.roles import PriorPreset
from .run.inputs import Inputs
from .run.loaded_lora import LoadedLora
from .run.merge import run_merge
from .run.options import MergeOptions
from .run.progress import loss_map
from .run.report import figures
from .ui.schema import schema
from .ui.sockets import CATEGORY, ConceptSocket, LoraModelSocket, LossMapSocket, MergedSocket, OptionsSocket
from .ui.widgets import dial_input, resolution_input, seed_input, steps_input, text_input

_DEFAULT = MergeConfig()


class ZipRankMerge(io.ComfyNode):
    """Trains the masks of content and style LoRAs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ZipRankMerge",
            display_name="ZipRank Merge",
            category=CATEGORY,
            description="Merges a content LoRA and a style LoRA, or several of either, into one that keeps them all, "
            "by training one mask per rank component for about 100 steps (DuoLoRA, arXiv 2504.13206). The model itself "
            "is not changed.",
            search_aliases=["duolora", "merge lora", "content style merge", "ziplora", "train merge"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL-family checkpoint, best the one that you will generate with."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP, to encode the prompts."),
                ConceptSocket.Input(
                    "content",
                    tooltip="From Load Content LoRA: the subject. Several come as a chain, through the others input of "
                    "their loaders.",
                ),
                ConceptSocket.Input("style", tooltip="From Load Style LoRA; several as with content."),
                text_input(
                    "combined_prompt",
                    "The prompt that you want to work afterwards: subject and style together, with both trigger "
                    "words. It is saved as the merge's trigger phrase, and live samples show it; only the cycle loss "
                    "learns from it, so with cycle_weight at 0 a change of it trains nothing again. Left empty, the "
                    "prompts are joined by commas. With several subjects, write one line for each.",
                    placeholder="a sks dog in wtrclr style",
                ),
                steps_input(
                    _DEFAULT.steps,
                    "Training steps. 100 as in the paper; 20 are enough for a first look. Three LoRAs want 300, four "
                    "400: each step trains on one subject and one style. With 'fast' on the options node, "
                    f"{FAST['steps']} at most.",
                ),
                seed_input("The same seed and inputs give the same masks on the same device."),
                resolution_input(
                    "Training size in pixels (the side of a square of equal area). 1024 is SDXL's own; 768 or 512 "
                    "need less memory and time."
                ),
                io.Combo.Input(
                    "layer_prior",
                    options=[*get_args(PriorPreset), "custom"],
                    default=_DEFAULT.layer_prior,
                    tooltip="Which blocks belong to content and which to style. resolution: the paper's rule. "
                    "b_lora_aware: as B-LoRA found. none: let training decide. custom: from the options node.",
                ),
                dial_input(
                    "layer_prior_weight",
                    _DEFAULT.layer_prior_weight,
                    (0.0, 10.0, 0.05),
                    "How strongly the layer prior keeps content and style to their blocks; 0 is off. Try "
                    "0.3 to 1 where one LoRA drowns the other; lower it if one of them fades.",
                ),
                dial_input(
                    "cycle_weight",
                    _DEFAULT.cycle_weight,
                    (0.0, 10.0, 0.01),
                    "Weight of the cycle-consistency loss (Constyle); 0 is off. The paper takes 0.01. Steps "
                    "with it cost two thirds more.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Needed only when a loader has pictures."),
                OptionsSocket.Input("options", optional=True, tooltip="From Merge Options; defaults without it."),
            ],
            outputs=[
                MergedSocket.Output("merged", tooltip="To Apply, Save, Combine and Report; strengths stay adjustable."),
                LoraModelSocket.Output("lora", tooltip="The merge as an ordinary LoRA, for core nodes."),
                LossMapSocket.Output("loss", tooltip="For core's Plot Loss Graph."),
                io.String.Output(
                    "info", tooltip="What was used, what was skipped and why, what the merge did and what to try next."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        content: LoadedLora,
        style: LoadedLora,
        combined_prompt: str,
        steps: int,
        seed: int,
        resolution: int,
        layer_prior: str,
        layer_prior_weight: float,
        cycle_weight: float,
        vae: Any = None,
        options: MergeOptions | None = None,
    ) -> io.NodeOutput:
        options = options or MergeOptions()
        config = replace(options.config, steps=min(steps, options.most_steps or steps), seed=seed)
        if not options.is_preset:
            prior = options.custom_prior if layer_prior == "custom" else layer_prior
            config = replace(
                config, layer_prior=prior, layer_prior_weight=layer_prior_weight, cycle_weight=cycle_weight
            )
        inputs = Inputs(model, clip, vae, resolution, options.run)
        result = run_merge(inputs, content, style, combined_prompt, config)
        info = [*result.notes, *(finding.text for finding in figures(result).findings)]
        return io.NodeOutput(result, result.lora, loss_map(result.losses), "\n".join(info))
