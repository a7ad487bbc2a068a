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
from .ui.sockets import CATEGORY, TrainOptionsSocket
from .ui.trained_outputs import node_output, trained_outputs
from .ui.widgets import learning_rate_input, rank_input, resolution_input, seed_input, steps_input, text_input

_DEFAULT = UnzipConfig()


class UnzipImage(io.ComfyNode):
    """UnZipLoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UnZipImage",
            display_name="UnZip Image",
            category=CATEGORY,
            description="Takes one picture apart: trains a LoRA of what it shows and a LoRA of how it is painted, both "
            "at once (UnZipLoRA, arXiv 2412.04465). Either works alone, both together paint the picture's subject in "
            "its style, and ZipRank Merge joins them with those of other pictures.",
            search_aliases=["duolora", "unziplora", "separate content and style", "style transfer", "train lora"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL-family checkpoint, best the one that you will generate with."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP, to encode the prompts. It is not trained."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE, to encode the picture."),
                io.Image.Input(
                    "picture",
                    tooltip="One picture. A batch works too, if all show the same subject in the same style.",
                ),
                text_input(
                    "prompt",
                    "The whole picture, with a trigger word for the subject and one for the style.",
                    placeholder="a sks dog in wtrclr style",
                ),
                text_input(
                    "content_prompt",
                    "The subject alone, with its trigger word. Prompts of any lengths go together.",
                    placeholder="a sks dog",
                ),
                text_input(
                    "style_prompt", "The style alone, with its trigger word.", placeholder="an image in wtrclr style"
                ),
                steps_input(_DEFAULT.learning.steps, "Training steps. 600 as in the paper; 100 to 200 for a look."),
                rank_input(TrainOptions().form.rank),
                learning_rate_input(
                    _DEFAULT.learning.learning_rate, "Raise it if the picture's subject or style does not come through."
                ),
                seed_input("The same seed and inputs give the same LoRAs on the same device."),
                resolution_input(
                    "Training size in pixels (the side of a square of equal area). 1024 is SDXL's own; 768 or 512 "
                    "need less memory and time."
                ),
                TrainOptionsSocket.Input("options", optional=True, tooltip="From Train Options; defaults without it."),
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
