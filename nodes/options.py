"""Merge Options: everything that is rarely changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.merge.config import FAST, PRESETS, CycleRoute, MergeConfig, PriorForm, Router, Timesteps
from ..duolora_core.merge.gates import Initialisation
from ..duolora_core.merge.stack import Basis
from .host.pictures import SampledImages
from .run.options import MergeOptions, RunOptions
from .ui.schema import schema
from .ui.sockets import OptionsSocket
from .ui.widgets import (
    CUSTOM,
    PLANNED,
    compute_input,
    dial_input,
    memory_plan_input,
    resume_input,
    switch_input,
    text_input,
)

SPEED = "fast"
_DEFAULT = MergeConfig()


class MergeOptionsNode(io.ComfyNode):
    """Collects the options into one object; nothing runs here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MergeOptions",
            search_aliases=["duolora", "ziprank options"],
            inputs=[
                io.Combo.Input("preset", options=[CUSTOM, *PRESETS], default=CUSTOM),
                dial_input("learning_rate", _DEFAULT.learning_rate, (0.0001, 1.0, 0.0001)),
                dial_input("weight_decay", _DEFAULT.weight_decay, (0.0, 1.0, 0.0001)),
                io.Combo.Input("basis", options=list(get_args(Basis)), default=_DEFAULT.basis),
                io.Combo.Input(
                    "initialisation",
                    options=list(get_args(Initialisation)),
                    default=_DEFAULT.initialisation,
                ),
                dial_input("content_threshold", _DEFAULT.content_threshold, (0.0, 1.0, 0.05)),
                dial_input("style_threshold", _DEFAULT.style_threshold, (0.0, 1.0, 0.05)),
                io.Combo.Input("prior_form", options=list(get_args(PriorForm)), default=_DEFAULT.prior_form),
                dial_input("sparsity", _DEFAULT.sparsity, (0.0, 10.0, 0.01)),
                dial_input("rank_weight", _DEFAULT.rank_weight, (0.0, 10.0, 0.1)),
                io.Combo.Input("cycle_route", options=list(get_args(CycleRoute)), default=_DEFAULT.cycle_route),
                dial_input("reconstruction_weight", _DEFAULT.reconstruction_weight, (0.0, 10.0, 0.01)),
                text_input("custom_prior", placeholder="mid_block=content, up_blocks.1=style"),
                io.Int.Input("micro_batch", default=_DEFAULT.micro_batch, min=1, max=8),
                switch_input("gradient_checkpointing", True),
                compute_input(),
                io.Int.Input("own_pictures", default=4, min=1, max=30),
                io.Int.Input("own_pictures_steps", default=20, min=1, max=100),
                dial_input("own_pictures_cfg", 6.0, (1.0, 30.0, 0.5)),
                text_input("negative_prompt"),
                # Optional, so that graphs saved before there were these still run.
                io.Int.Input("pool", optional=True, default=_DEFAULT.pool, min=0, max=1000),
                io.Combo.Input(
                    "timesteps",
                    optional=True,
                    options=list(get_args(Timesteps)),
                    default=_DEFAULT.timesteps,
                ),
                memory_plan_input(optional=True),
                io.Int.Input("sample_every", default=0, min=0, max=1000, optional=True),
                resume_input(optional=True),
                io.Combo.Input(
                    "router",
                    optional=True,
                    options=list(get_args(Router)),
                    default=_DEFAULT.router,
                ),
            ],
            outputs=[OptionsSocket.Output("options")],
        )

    @classmethod
    def execute(
        cls,
        preset: str,
        custom_prior: str,
        gradient_checkpointing: bool,
        compute_dtype: str,
        own_pictures: int,
        own_pictures_steps: int,
        own_pictures_cfg: float,
        negative_prompt: str,
        micro_batch: int,
        memory_plan: str = PLANNED,
        sample_every: int = 0,
        resume: bool = True,
        **settings: Any,
    ) -> io.NodeOutput:
        is_preset = preset not in (CUSTOM, SPEED)
        if preset == SPEED:
            settings |= FAST
        config = PRESETS[preset] if is_preset else MergeConfig(**settings)
        return io.NodeOutput(
            MergeOptions(
                config=replace(config, micro_batch=micro_batch),
                is_preset=is_preset,
                most_steps=config.steps if preset == SPEED else None,
                custom_prior=custom_prior,
                run=RunOptions(
                    compute=compute_dtype,
                    checkpointing=None if memory_plan == PLANNED else gradient_checkpointing,
                    sampled_images=SampledImages(own_pictures, own_pictures_steps, own_pictures_cfg, negative_prompt),
                    sample_every=sample_every,
                    resume=resume,
                ),
            )
        )
