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
from .ui.sockets import CATEGORY, OptionsSocket
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
            display_name="Merge Options",
            category=CATEGORY,
            description="Options of ZipRank Merge that are rarely changed, and the settings of the paper as presets.",
            search_aliases=["duolora", "ziprank options"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[CUSTOM, *PRESETS],
                    default=CUSTOM,
                    tooltip="'paper' and 'authors_code' reproduce the published settings and replace everything but "
                    "steps, seed and resolution, here and on the merge node.",
                ),
                dial_input(
                    "learning_rate",
                    _DEFAULT.learning_rate,
                    (0.0001, 1.0, 0.0001),
                    "How fast the masks move. 0.01 for 100 steps; lower it if the loss jumps.",
                ),
                dial_input(
                    "weight_decay",
                    _DEFAULT.weight_decay,
                    (0.0, 1.0, 0.0001),
                    "Pulls all masks towards zero. 0 unless you reproduce the authors' code.",
                ),
                io.Combo.Input(
                    "basis",
                    options=list(get_args(Basis)),
                    default=_DEFAULT.basis,
                    tooltip="svd: masks act on each LoRA's strongest directions. factors: on the file's own, "
                    "arbitrary ones.",
                ),
                io.Combo.Input(
                    "initialisation",
                    options=list(get_args(Initialisation)),
                    default=_DEFAULT.initialisation,
                    tooltip="ones: start from both LoRAs fully on. random, strongest: switch some parts of the less "
                    "important LoRA of each block off from the start.",
                ),
                dial_input(
                    "content_threshold",
                    _DEFAULT.content_threshold,
                    (0.0, 1.0, 0.05),
                    "Share switched off at the start for the less important LoRA of a block. Not used with 'ones'.",
                ),
                dial_input(
                    "style_threshold",
                    _DEFAULT.style_threshold,
                    (0.0, 1.0, 0.05),
                    "The same for the more important LoRA; not above content_threshold. Not used with 'ones'.",
                ),
                io.Combo.Input(
                    "prior_form",
                    options=list(get_args(PriorForm)),
                    default=_DEFAULT.prior_form,
                    tooltip="diagonal: the rank constraint as the paper defines it. vector: as its code computes it.",
                ),
                dial_input(
                    "sparsity",
                    _DEFAULT.sparsity,
                    (0.0, 10.0, 0.01),
                    "How strongly the more important LoRA of a block is kept lean. Keep it below rank_weight.",
                ),
                dial_input(
                    "rank_weight",
                    _DEFAULT.rank_weight,
                    (0.0, 10.0, 0.1),
                    "How strongly the less important LoRA of a block is held below the other.",
                ),
                io.Combo.Input(
                    "cycle_route",
                    options=list(get_args(CycleRoute)),
                    default=_DEFAULT.cycle_route,
                    tooltip="authors: compare with style added and taken away by the single LoRAs. "
                    "differentiable: let the merge itself take it away.",
                ),
                dial_input(
                    "reconstruction_weight",
                    _DEFAULT.reconstruction_weight,
                    (0.0, 10.0, 0.01),
                    "How strongly the merge must match each LoRA on its own prompt.",
                ),
                text_input(
                    "custom_prior",
                    "Block roles for layer_prior 'custom': block=content, style or neutral, separated by "
                    "commas. Names as in diffusers or ComfyUI; blocks not named are neutral.",
                    placeholder="mid_block=content, up_blocks.1=style",
                ),
                io.Int.Input(
                    "micro_batch",
                    default=_DEFAULT.micro_batch,
                    min=1,
                    max=8,
                    tooltip="Samples per forward, at most. Fewer are taken where memory is short; the result stays "
                    "the same.",
                ),
                switch_input(
                    "gradient_checkpointing",
                    True,
                    "Saves much memory for about a fifth more time; the result stays the same. Heeded only if "
                    "memory_plan is 'as set here'.",
                ),
                compute_input("Precision of the training. Try bf16 or fp32 if the loss is not a number in fp16."),
                io.Int.Input(
                    "own_pictures",
                    default=4,
                    min=1,
                    max=30,
                    tooltip="How many training pictures the merge samples for a LoRA that comes without pictures.",
                ),
                io.Int.Input(
                    "own_pictures_steps", default=20, min=1, max=100, tooltip="Sampling steps of those pictures."
                ),
                dial_input("own_pictures_cfg", 6.0, (1.0, 30.0, 0.5), "CFG of those pictures."),
                text_input("negative_prompt", "Negative prompt of those pictures."),
                # Optional, so that graphs saved before there were these still run.
                io.Int.Input(
                    "pool",
                    optional=True,
                    default=_DEFAULT.pool,
                    min=0,
                    max=1000,
                    tooltip="0: each step looks at a new picture, noise and timestep. Above 0: only that many are "
                    "drawn, and what each LoRA alone makes of them is computed once, so that all further steps are "
                    "faster.",
                ),
                io.Combo.Input(
                    "timesteps",
                    optional=True,
                    options=list(get_args(Timesteps)),
                    default=_DEFAULT.timesteps,
                    tooltip="uniform: the noise level of each step is left to chance. stratified: all of them together "
                    "cover the whole range evenly; best with a pool.",
                ),
                memory_plan_input(", for instance to leave memory to other programs", optional=True),
                io.Int.Input(
                    "sample_every",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    tooltip="0 is off. Above 0: every that many steps of ZipRank Merge, its preview shows a quick "
                    "sample of the combined prompt, always from the same noise. Each one costs about as much time as "
                    "three steps; the result of the training stays the same.",
                ),
                resume_input(optional=True),
                io.Combo.Input(
                    "router",
                    optional=True,
                    options=list(get_args(Router)),
                    default=_DEFAULT.router,
                    tooltip="Whether training starts behind a closed-form router (SSR-Merge, arXiv 2606.10617), which "
                    "keeps each LoRA to what it meets on its own pictures. auto: where more than two LoRAs are merged.",
                ),
            ],
            outputs=[OptionsSocket.Output("options", tooltip="To ZipRank Merge, or to Baseline Merge for ZipLoRA.")],
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
