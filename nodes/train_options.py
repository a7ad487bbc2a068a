"""Train Options: what is rarely changed in a training from pictures."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.train_lora import LoraConfig, Rates, TargetModules, TrainConfig, UnzipConfig
from ..duolora_core.train_lora.config import Schedule
from .host.pictures import SampledImages
from .run.options import TrainOptions
from .ui.schema import schema
from .ui.sockets import TrainOptionsSocket
from .ui.widgets import PLANNED, compute_input, dial_input, memory_plan_input, resume_input, switch_input, text_input

_DEFAULT = TrainOptions()
_LEARNING, _UNZIP, _MADE = _DEFAULT.learning, _DEFAULT.unzip, _DEFAULT.sampled_images
_RATES = ("feed_forward", "projection", "convolution", "content_blocks", "style_blocks")
_UNZIP_INPUTS = ("separate_prompts", "separate_columns", "separate_blocks", "orthogonality", "column_share")


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
                *(dial_input(f"{part}_rate", 1.0, (0.0, 100.0, 0.05)) for part in _RATES),
                dial_input("lowest_strength", _LEARNING.strengths[0], (0.0, 10.0, 0.05)),
                dial_input("highest_strength", _LEARNING.strengths[1], (0.0, 10.0, 0.05)),
                io.Int.Input("own_pictures", default=_MADE.count, min=1, max=200),
                io.Int.Input("own_pictures_steps", default=_MADE.steps, min=1, max=100),
                dial_input("own_pictures_cfg", _MADE.cfg, (1.0, 30.0, 0.5)),
                text_input("negative_prompt"),
                io.Int.Input("sample_every", default=_DEFAULT.sample_every, min=0, max=10000),
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
    def execute(cls, **given: Any) -> io.NodeOutput:
        learning = TrainConfig(
            steps=max(1, given["warmup_steps"]),  # until the trainer says how many
            weight_decay=given["weight_decay"],
            clip=given["max_grad_norm"],
            rates=Rates(**{part: given[f"{part}_rate"] for part in _RATES}),
            micro_batch=given["micro_batch"],
            schedule=given["schedule"],
            warmup=given["warmup_steps"],
            min_snr_gamma=given["min_snr_gamma"] or None,
            strengths=(given["lowest_strength"], given["highest_strength"]),
        )
        own = given["own_pictures"], given["own_pictures_steps"], given["own_pictures_cfg"]
        return io.NodeOutput(
            TrainOptions(
                form=LoraConfig(alpha=given["lora_alpha"] or None, coverage=given["coverage"]),
                learning=learning,
                unzip=UnzipConfig(**{name: given[name] for name in _UNZIP_INPUTS}),
                compute=given["compute_dtype"],
                checkpointing=None if given["memory_plan"] == PLANNED else given["gradient_checkpointing"],
                sampled_images=SampledImages(*own, given["negative_prompt"]),
                sample_every=given["sample_every"],
                sample_prompt=given["sample_prompt"].strip(),
                resume=given["resume"],
            )
        )
