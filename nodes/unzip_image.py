"""UnZip Image: one picture into a content LoRA and a style LoRA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..duolora_core.train_lora import UnzipConfig
from .run.inputs import Inputs
from .run.options import TrainOptions
from .run.train_lora import UnzipTask, unzip_picture
from .ui.schema import schema
from .ui.sockets import TrainOptionsSocket
from .ui.trained_outputs import node_output, trained_outputs
from .ui.widgets import learning_rate_input, rank_input, resolution_input, seed_input, steps_input, text_input

_DEFAULT = UnzipConfig()


class UnzipImage(io.ComfyNode):
    """UnZipLoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UnZipImage",
            search_aliases=["duolora", "unziplora", "separate content and style", "style transfer", "train lora"],
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.Image.Input("picture"),
                text_input("prompt", placeholder="a sks dog in wtrclr style"),
                text_input("content_prompt", placeholder="a sks dog"),
                text_input("style_prompt", placeholder="an image in wtrclr style"),
                steps_input(_DEFAULT.learning.steps),
                rank_input(TrainOptions().form.rank),
                learning_rate_input(_DEFAULT.learning.learning_rate),
                seed_input(),
                resolution_input(),
                TrainOptionsSocket.Input("options", optional=True),
            ],
            outputs=trained_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        picture: Tensor,
        prompt: str,
        content_prompt: str,
        style_prompt: str,
        steps: int,
        rank: int,
        learning_rate: float,
        seed: int,
        resolution: int,
        options: TrainOptions | None = None,
    ) -> io.NodeOutput:
        options = options or TrainOptions()
        learning = replace(options.learning, steps=steps, learning_rate=learning_rate, seed=seed)
        config = replace(options.unzip, learning=learning)
        task = UnzipTask(picture, prompt.strip(), content_prompt.strip(), style_prompt.strip())
        inputs = Inputs(model, clip, vae, resolution, options.run)
        return node_output(unzip_picture(inputs, task, replace(options.form, rank=rank), config))
