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
from .ui.sockets import TrainOptionsSocket
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
            search_aliases=["duolora", "train lora", "dreambooth", "b-lora", "lora training"],
            is_input_list=True,  # else pictures of several sizes would run the node once for each
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.Image.Input("pictures"),
                io.Combo.Input("role", options=list(get_args(Trained)), default="content"),
                text_input("prompt", placeholder="a photo of sks dog"),
                steps_input(_DEFAULT.learning.steps),
                rank_input(_DEFAULT.form.rank),
                learning_rate_input(_DEFAULT.learning.learning_rate),
                io.Int.Input("batch_size", default=_DEFAULT.learning.batch, min=1, max=64),
                seed_input(),
                resolution_input(),
                text_input("class_prompt", placeholder="a photo of a dog"),
                dial_input("prior_weight", _DEFAULT.learning.prior_weight, (0.0, 10.0, 0.05)),
                *(io.Image.Input(name, optional=True) for name in MORE_PICTURES),
                io.Image.Input("class_pictures", optional=True),
                TrainOptionsSocket.Input("options", optional=True),
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
