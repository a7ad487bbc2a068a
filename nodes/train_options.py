"""Train Options: what is rarely changed in a training from pictures."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.train_lora import LoraConfig, Rates, TargetModules, TrainConfig, UnzipConfig
from ..duolora_core.train_lora.config import Schedule
from .host.pictures import SampledImages
from .run.options import RunOptions, TrainOptions
from .ui.schema import schema
from .ui.sockets import TrainOptionsSocket
from .ui.widgets import PLANNED, compute_input, dial_input, memory_plan_input, resume_input, switch_input, text_input

_DEFAULT = TrainOptions()
_LEARNING, _UNZIP, _MADE = _DEFAULT.learning, _DEFAULT.unzip, _DEFAULT.run.sampled_images
_RATE = 1.0, (0.0, 100.0, 0.05)
"""A factor on the learning rate: default and range."""


class TrainOptionsNode(io.ComfyNode):
    """Collects the options into one object; nothing runs here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TrainOptions",
            search_aliases=["duolora", "dreambooth options", "lora training settings"],
            inputs=[
                io.Combo.Input("coverage", options=list(get_args(TargetModules)), default=_DEFAULT.form.coverage),
                dial_input("lora_alpha", 0.0, (0.0, 1024.0, 1.0)),
                dial_input("weight_decay", _LEARNING.weight_decay, (0.0, 1.0, 0.0001)),
                dial_input("max_grad_norm", _LEARNING.clip, (0.01, 1000.0, 0.01)),
                io.Combo.Input("schedule", options=list(get_args(Schedule)), default=_LEARNING.schedule),
                io.Int.Input("warmup_steps", default=_LEARNING.warmup, min=0, max=10000),
                dial_input("min_snr_gamma", 0.0, (0.0, 100.0, 0.5)),
                dial_input("feed_forward_rate", *_RATE),
                dial_input("projection_rate", *_RATE),
                dial_input("convolution_rate", *_RATE),
                dial_input("content_blocks_rate", *_RATE),
                dial_input("style_blocks_rate", *_RATE),
                dial_input("lowest_strength", _LEARNING.strengths[0], (0.0, 10.0, 0.05)),
                dial_input("highest_strength", _LEARNING.strengths[1], (0.0, 10.0, 0.05)),
                io.Int.Input("own_pictures", default=_MADE.count, min=1, max=200),
                io.Int.Input("own_pictures_steps", default=_MADE.steps, min=1, max=100),
                dial_input("own_pictures_cfg", _MADE.cfg, (1.0, 30.0, 0.5)),
                text_input("negative_prompt"),
                io.Int.Input("sample_every", default=_DEFAULT.run.sample_every, min=0, max=10000),
                text_input("sample_prompt"),
                io.Int.Input("micro_batch", default=_LEARNING.micro_batch, min=1, max=64),
                memory_plan_input(),
                switch_input("gradient_checkpointing", True),
                compute_input(),
                resume_input(),
                switch_input("separate_prompts", _UNZIP.separate_prompts),
                switch_input("separate_columns", _UNZIP.separate_columns),
                switch_input("separate_blocks", _UNZIP.separate_blocks),
                dial_input("orthogonality", _UNZIP.orthogonality, (0.0, 1000.0, 0.1)),
                dial_input("column_share", _UNZIP.column_share, (0.01, 1.0, 0.01)),
            ],
            outputs=[TrainOptionsSocket.Output("options")],
        )

    @classmethod
    def execute(
        cls,
        coverage: TargetModules,
        lora_alpha: float,
        weight_decay: float,
        max_grad_norm: float,
        schedule: Schedule,
        warmup_steps: int,
        min_snr_gamma: float,
        feed_forward_rate: float,
        projection_rate: float,
        convolution_rate: float,
        content_blocks_rate: float,
        style_blocks_rate: float,
        lowest_strength: float,
        highest_strength: float,
        own_pictures: int,
        own_pictures_steps: int,
        own_pictures_cfg: float,
        negative_prompt: str,
        sample_every: int,
        sample_prompt: str,
        micro_batch: int,
        memory_plan: str,
        gradient_checkpointing: bool,
        compute_dtype: str,
        resume: bool,
        **unzip: Any,
    ) -> io.NodeOutput:
        rates = Rates(
            feed_forward=feed_forward_rate,
            projection=projection_rate,
            convolution=convolution_rate,
            content_blocks=content_blocks_rate,
            style_blocks=style_blocks_rate,
        )
        learning = TrainConfig(
            steps=max(1, warmup_steps),  # until the trainer says how many
            weight_decay=weight_decay,
            clip=max_grad_norm,
            rates=rates,
            micro_batch=micro_batch,
            schedule=schedule,
            warmup=warmup_steps,
            min_snr_gamma=min_snr_gamma or None,
            strengths=(lowest_strength, highest_strength),
        )
        return io.NodeOutput(
            TrainOptions(
                form=LoraConfig(alpha=lora_alpha or None, coverage=coverage),
                learning=learning,
                unzip=UnzipConfig(**unzip),
                run=RunOptions(
                    compute=compute_dtype,
                    checkpointing=None if memory_plan == PLANNED else gradient_checkpointing,
                    sampled_images=SampledImages(own_pictures, own_pictures_steps, own_pictures_cfg, negative_prompt),
                    sample_every=sample_every,
                    sample_prompt=sample_prompt.strip(),
                    resume=resume,
                ),
            )
        )
