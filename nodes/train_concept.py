"""Train Concept LoRA: a LoRA from pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from .run.options import TrainOptions
from .run.train_lora import ConceptTask, Trained, train_concept
from .run.training_inputs import TrainingInputs
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
        given = {name: values[0] for name, values in inputs.items()}
        options: TrainOptions = given.get("options") or TrainOptions()
        config = replace(
            options.learning,
            steps=given["steps"],
            learning_rate=given["learning_rate"],
            batch=given["batch_size"],
            seed=given["seed"],
            prior_weight=given["prior_weight"],
        )
        prompt, class_prompt = given["prompt"].strip(), given["class_prompt"].strip()
        task = ConceptTask(given["role"], [*pictures, *more], prompt, class_pictures or [], class_prompt)
        model = TrainingInputs(given["model"], given["clip"], given["vae"], given["resolution"], options)
        return node_output(train_concept(model, task, replace(options.form, rank=given["rank"]), config))
