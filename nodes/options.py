"""Merge Options: everything that is rarely changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.config import FAST, PRESETS, CycleRoute, MergeConfig, Timesteps
from ..duolora_core.gates import Initialisation
from ..duolora_core.losses import PriorForm
from ..duolora_core.pair import Basis
from .schema import schema
from .sockets import CATEGORY, MergeOptions, OptionsSocket

CUSTOM = "as set here"
SPEED = "fast"
PLANNED = "auto"
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
                    tooltip="'paper' and 'authors_code' reproduce the published settings and replace everything "
                    "but steps, "
                    "seed and resolution, here and on the merge node.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=_DEFAULT.learning_rate,
                    min=0.0001,
                    max=1.0,
                    step=0.0001,
                    tooltip="How fast the masks move. 0.01 for 100 steps; lower it if the loss jumps.",
                ),
                io.Float.Input(
                    "weight_decay",
                    default=_DEFAULT.weight_decay,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    tooltip="Pulls all masks towards zero. 0 unless you reproduce the authors' code.",
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
                io.Float.Input(
                    "content_threshold",
                    default=_DEFAULT.content_threshold,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share switched off at the start for the less important LoRA of a block. Not used "
                    "with 'ones'.",
                ),
                io.Float.Input(
                    "style_threshold",
                    default=_DEFAULT.style_threshold,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The same for the more important LoRA; not above content_threshold. Not used with 'ones'.",
                ),
                io.Combo.Input(
                    "prior_form",
                    options=list(get_args(PriorForm)),
                    default=_DEFAULT.prior_form,
                    tooltip="diagonal: the rank constraint as the paper defines it. vector: as its code computes it.",
                ),
                io.Float.Input(
                    "sparsity",
                    default=_DEFAULT.sparsity,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly the more important LoRA of a block is kept lean. Keep it below rank_weight.",
                ),
                io.Float.Input(
                    "rank_weight",
                    default=_DEFAULT.rank_weight,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How strongly the less important LoRA of a block is held below the other.",
                ),
                io.Combo.Input(
                    "cycle_route",
                    options=list(get_args(CycleRoute)),
                    default=_DEFAULT.cycle_route,
                    tooltip="authors: compare with style added and taken away by the single LoRAs. "
                    "differentiable: let the "
                    "merge itself take it away.",
                ),
                io.Float.Input(
                    "reconstruction_weight",
                    default=_DEFAULT.reconstruction_weight,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly the merge must match each LoRA on its own prompt.",
                ),
                io.String.Input(
                    "custom_prior",
                    default="",
                    multiline=True,
                    placeholder="mid_block=content, up_blocks.1=style",
                    tooltip="Block roles for layer_prior 'custom': block=content, style or neutral, separated "
                    "by commas. "
                    "Names as in diffusers or ComfyUI; blocks not named are neutral.",
                ),
                io.Int.Input(
                    "micro_batch",
                    default=_DEFAULT.micro_batch,
                    min=1,
                    max=8,
                    tooltip="Samples per forward, at most. Fewer are taken where memory is short; the result stays "
                    "the same.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=True,
                    tooltip="Saves much memory for about a fifth more time; the result stays the same. Heeded only if "
                    "memory_plan is 'as set here'.",
                ),
                io.Combo.Input(
                    "compute_dtype",
                    options=["as loaded", "bf16", "fp16", "fp32"],
                    default="as loaded",
                    tooltip="Precision of the training. Try bf16 or fp32 if the loss is not a number in fp16.",
                ),
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
                io.Float.Input(
                    "own_pictures_cfg", default=6.0, min=1.0, max=30.0, step=0.5, tooltip="CFG of those pictures."
                ),
                io.String.Input(
                    "negative_prompt", default="", multiline=True, tooltip="Negative prompt of those pictures."
                ),
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
                io.Combo.Input(
                    "memory_plan",
                    options=[PLANNED, CUSTOM],
                    default=PLANNED,
                    optional=True,
                    tooltip="auto: use gradient checkpointing and a smaller micro-batch only if the free memory asks "
                    "for it. as set here: start with both as they are set, for instance to leave memory to other "
                    "programs.",
                ),
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
                io.Boolean.Input(
                    "resume",
                    default=True,
                    optional=True,
                    tooltip="After a crash or Cancel, the same graph with the same seed goes on where its training "
                    "stopped, with the same result as without the stop. Off: it starts from the first step, and "
                    "nothing is kept.",
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
                compute=compute_dtype,
                checkpointing=None if memory_plan == PLANNED else gradient_checkpointing,
                self_made_count=own_pictures,
                self_made_steps=own_pictures_steps,
                self_made_cfg=own_pictures_cfg,
                negative_prompt=negative_prompt,
                sample_every=sample_every,
                resume=resume,
            )
        )
