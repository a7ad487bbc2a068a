"""ZipRank Merge: the trainer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.merge.config import MergeConfig
from ..duolora_core.merge.roles import PriorPreset
from .run.inputs import Inputs
from .run.loaded_lora import LoadedLora
from .run.merge import run_merge
from .run.options import MergeOptions
from .run.progress import loss_map
from .run.report import figures
from .ui.schema import schema
from .ui.sockets import ConceptSocket, LoraModelSocket, LossMapSocket, MergedSocket, OptionsSocket
from .ui.widgets import dial_input, resolution_input, seed_input, steps_input, text_input

_DEFAULT = MergeConfig()


class ZipRankMerge(io.ComfyNode):
    """Trains the masks of content and style LoRAs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ZipRankMerge",
            search_aliases=["duolora", "merge lora", "content style merge", "ziplora", "train merge"],
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                ConceptSocket.Input("content"),
                ConceptSocket.Input("style"),
                text_input("combined_prompt", placeholder="a sks dog in wtrclr style"),
                steps_input(_DEFAULT.steps),
                seed_input(),
                resolution_input(),
                io.Combo.Input("layer_prior", options=[*get_args(PriorPreset), "custom"], default=_DEFAULT.layer_prior),
                dial_input("layer_prior_weight", _DEFAULT.layer_prior_weight, (0.0, 10.0, 0.05)),
                dial_input("cycle_weight", _DEFAULT.cycle_weight, (0.0, 10.0, 0.01)),
                io.Vae.Input("vae", optional=True),
                OptionsSocket.Input("options", optional=True),
            ],
            outputs=[
                MergedSocket.Output("merged"),
                LoraModelSocket.Output("lora"),
                LossMapSocket.Output("loss"),
                io.String.Output("info"),
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
