"""Train Concept LoRA: a LoRA from pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from .run.inputs import Inputs
from .run.options import TrainOptions
from .run.train_lora import ConceptTask, Trained, train_concept
from .ui.schema import schema
from .ui.sockets import CATEGORY, TrainOptionsSocket
from .ui.trained_outputs import node_output, trained_outputs
from .ui.widgets import (
    dial_input,
    learning_rate_input,
    rank_input,
    resolution_input,
    seed_input,
    steps_input,
    text_input,
)

_DEFAULT = TrainOptions()
MORE_PICTURES = tuple(f"pictures_{i}" for i in range(2, 5))


class TrainConceptLora(io.ComfyNode):
    """DreamBooth with LoRA, and B-LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TrainConceptLoRA",
            display_name="Train Concept LoRA",
            category=CATEGORY,
            description="Trains the LoRA of a subject or of a style from 1 to 30 pictures of any sizes (DreamBooth), "
            "or a content and a style LoRA from one picture (B-LoRA), ready for ZipRank Merge. The model itself is not "
            "changed.",
            search_aliases=["duolora", "train lora", "dreambooth", "b-lora", "lora training"],
            is_input_list=True,  # else pictures of several sizes would run the node once for each
            inputs=[
                io.Model.Input("model", tooltip="An SDXL-family checkpoint, best the one that you will generate with."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP, to encode the prompts. It is not trained."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE, to encode the pictures."),
                io.Image.Input(
                    "pictures",
                    tooltip="1 to 30 pictures of the subject or style: a batch, or a list of several sizes. Each is "
                    "resized to about resolution² pixels; none is cropped or flipped.",
                ),
                io.Combo.Input(
                    "role",
                    options=list(get_args(Trained)),
                    default="content",
                    tooltip="content: a subject. style: a style. both (B-LoRA): from one picture, content and style "
                    "at once, each in its own block.",
                ),
                text_input(
                    "prompt",
                    "What all pictures show, with a rare word as the trigger: 'a photo of sks dog', 'a "
                    "painting in wtrclr style'.",
                    placeholder="a photo of sks dog",
                ),
                steps_input(_DEFAULT.learning.steps, "Training steps. 1000 as in the paper; 100 to 300 for a look."),
                rank_input(_DEFAULT.form.rank),
                learning_rate_input(
                    _DEFAULT.learning.learning_rate, "Lower it if the LoRA paints only its own pictures, or noise."
                ),
                io.Int.Input(
                    "batch_size",
                    default=_DEFAULT.learning.batch,
                    min=1,
                    max=64,
                    tooltip="Pictures of each step, all of one size. Where memory is short they go through one after "
                    "the other (gradient accumulation).",
                ),
                seed_input("The same seed and inputs give the same LoRA on the same device."),
                resolution_input(
                    "Training size in pixels (the side of a square of equal area). 1024 is SDXL's own; 768 or 512 "
                    "need less memory and time."
                ),
                text_input(
                    "class_prompt",
                    "The same without the trigger. Not empty: prior preservation, so that other dogs stay "
                    "dogs; each step then costs twice as much.",
                    placeholder="a photo of a dog",
                ),
                dial_input(
                    "prior_weight",
                    _DEFAULT.learning.prior_weight,
                    (0.0, 10.0, 0.05),
                    "How much the class pictures count; 0 is off. Not used without class_prompt.",
                ),
                *(
                    io.Image.Input(name, optional=True, tooltip="More pictures, of another size than the first.")
                    for name in MORE_PICTURES
                ),
                io.Image.Input(
                    "class_pictures",
                    optional=True,
                    tooltip="Pictures for class_prompt. Without them the model paints its own.",
                ),
                TrainOptionsSocket.Input("options", optional=True, tooltip="From Train Options; defaults without it."),
            ],
            outputs=trained_outputs(),
        )

    @classmethod
    def execute(
        cls, pictures: list[Tensor], class_pictures: list[Tensor] | None = None, **inputs: list[Any]
    ) -> io.NodeOutput:
        more = [batch for name in MORE_PICTURES for batch in inputs.pop(name, [])]
        return cls._train(
            [*pictures, *more], class_pictures or [], **{name: given[0] for name, given in inputs.items()}
        )

    @classmethod
    def _train(
        cls,
        pictures: list[Tensor],
        class_pictures: list[Tensor],
        *,
        model: Any,
        clip: Any,
        vae: Any,
        role: Trained,
        prompt: str,
        steps: int,
        rank: int,
        learning_rate: float,
        batch_size: int,
        seed: int,
        resolution: int,
        class_prompt: str,
        prior_weight: float,
        options: TrainOptions | None = None,
    ) -> io.NodeOutput:
        options = options or TrainOptions()
        config = replace(
            options.learning,
            steps=steps,
            learning_rate=learning_rate,
            batch=batch_size,
            seed=seed,
            prior_weight=prior_weight,
        )
        task = ConceptTask(role, pictures, prompt.strip(), class_pictures, class_prompt.strip())
        inputs = Inputs(model, clip, vae, resolution, options.run)
        return node_output(train_concept(inputs, task, replace(options.form, rank=rank), config))
