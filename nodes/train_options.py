"""Train Options: what is rarely changed in a training from pictures."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..duolora_core.train_lora import LoraConfig, Rates, TargetModules, TrainConfig, UnzipConfig
from ..duolora_core.train_lora.config import Schedule
from .host.pictures import SampledImages
from .run.options import RunOptions, TrainOptions
from .ui.schema import schema
from .ui.sockets import CATEGORY, TrainOptionsSocket
from .ui.widgets import PLANNED, compute_input, dial_input, memory_plan_input, resume_input, switch_input, text_input

_DEFAULT = TrainOptions()
_LEARNING, _UNZIP, _MADE = _DEFAULT.learning, _DEFAULT.unzip, _DEFAULT.run.sampled_images


def _rate(name: str, of: str) -> io.Input:
    tooltip = f"Factor on the learning rate of {of}; 0 leaves them untrained."
    return dial_input(name, 1.0, (0.0, 100.0, 0.05), tooltip)


class TrainOptionsNode(io.ComfyNode):
    """Collects the options into one object; nothing runs here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TrainOptions",
            display_name="Train Options",
            category=CATEGORY,
            description="Options of Train Concept LoRA and UnZip Image that are rarely changed.",
            search_aliases=["duolora", "dreambooth options", "lora training settings"],
            inputs=[
                io.Combo.Input(
                    "coverage",
                    options=list(get_args(TargetModules)),
                    default=_DEFAULT.form.coverage,
                    tooltip="Which layers are trained. attention: as in the papers. with feed-forward: more detail, a "
                    "file about twice as large. transformers: kohya's default. all: the convolutions too.",
                ),
                dial_input(
                    "lora_alpha",
                    0.0,
                    (0.0, 1024.0, 1.0),
                    "Scales the LoRA by alpha / rank while it trains, and so its learning rate. 0: alpha is the rank.",
                ),
                dial_input(
                    "weight_decay", _LEARNING.weight_decay, (0.0, 1.0, 0.0001), "Of AdamW: pulls the LoRA towards zero."
                ),
                dial_input(
                    "max_grad_norm",
                    _LEARNING.clip,
                    (0.01, 1000.0, 0.01),
                    "Gradients longer than this are shortened to it, so that one odd step does no harm.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=list(get_args(Schedule)),
                    default=_LEARNING.schedule,
                    tooltip="The learning rate over the steps: constant; falling along half a cosine; or constant for "
                    "the first half and then falling linearly.",
                ),
                io.Int.Input(
                    "warmup_steps",
                    default=_LEARNING.warmup,
                    min=0,
                    max=10000,
                    tooltip="Steps over which the learning rate rises from 0.",
                ),
                dial_input(
                    "min_snr_gamma",
                    0.0,
                    (0.0, 100.0, 0.5),
                    "Counts steps of little noise less (Min-SNR weighting); 5 is common. 0: all steps count alike.",
                ),
                _rate("feed_forward_rate", "feed-forward layers"),
                _rate("projection_rate", "the projections around transformers"),
                _rate("convolution_rate", "convolutions"),
                _rate("content_blocks_rate", "the blocks that carry content (as the merge's layer_prior says)"),
                _rate("style_blocks_rate", "the blocks that carry style"),
                dial_input(
                    "lowest_strength",
                    _LEARNING.strengths[0],
                    (0.0, 10.0, 0.05),
                    "Each step trains at a strength drawn between this and highest_strength. With 0.5 to 1.25 "
                    "the LoRA holds over a strength dial; both 1: it is trained at 1 alone.",
                ),
                dial_input(
                    "highest_strength", _LEARNING.strengths[1], (0.0, 10.0, 0.05), "See lowest_strength; not below it."
                ),
                io.Int.Input(
                    "own_pictures",
                    default=_MADE.count,
                    min=1,
                    max=200,
                    tooltip="How many class pictures the model paints itself, where there is a class prompt and no "
                    "class pictures are connected.",
                ),
                io.Int.Input(
                    "own_pictures_steps", default=_MADE.steps, min=1, max=100, tooltip="Sampling steps of those."
                ),
                dial_input("own_pictures_cfg", _MADE.cfg, (1.0, 30.0, 0.5), "CFG of those, and of live samples."),
                text_input("negative_prompt", "Negative prompt of those, and of live samples."),
                io.Int.Input(
                    "sample_every",
                    default=_DEFAULT.run.sample_every,
                    min=0,
                    max=10000,
                    tooltip="0 is off. Above 0: every that many steps the preview shows a quick sample, always from "
                    "the same noise. The result of the training stays the same.",
                ),
                text_input(
                    "sample_prompt",
                    "What the samples show; empty: the training's own prompt. Another place or look tells "
                    "whether the LoRA has learned the concept or the pictures by heart.",
                ),
                io.Int.Input(
                    "micro_batch",
                    default=_LEARNING.micro_batch,
                    min=1,
                    max=64,
                    tooltip="Samples per forward, at most; the gradients of a step's batch are accumulated. Fewer are "
                    "taken where memory is short; the result stays the same.",
                ),
                memory_plan_input(),
                switch_input(
                    "gradient_checkpointing",
                    True,
                    "Saves much memory for about a third more time; the result stays the same. Heeded only if "
                    "memory_plan is 'as set here'.",
                ),
                compute_input(
                    "Precision of the training; the LoRA itself is trained in fp32. Try bf16 or fp32 if the "
                    "loss is not a number in fp16."
                ),
                resume_input(),
                switch_input(
                    "separate_prompts",
                    _UNZIP.separate_prompts,
                    "UnZip Image: each LoRA reads its own prompt while both train as one.",
                ),
                switch_input(
                    "separate_columns",
                    _UNZIP.separate_columns,
                    "UnZip Image: each LoRA trains the columns that matter to it and keeps out of the other's.",
                ),
                switch_input(
                    "separate_blocks",
                    _UNZIP.separate_blocks,
                    "UnZip Image: in the blocks known for content or style, that LoRA trains all columns. "
                    "Heeded only with separate_columns.",
                ),
                dial_input(
                    "orthogonality",
                    _UNZIP.orthogonality,
                    (0.0, 1000.0, 0.1),
                    "UnZip Image: how strongly the two LoRAs are kept from scaling the same columns.",
                ),
                dial_input(
                    "column_share",
                    _UNZIP.column_share,
                    (0.01, 1.0, 0.01),
                    "UnZip Image: share of a layer's columns that is opened to each LoRA, three times.",
                ),
            ],
            outputs=[TrainOptionsSocket.Output("options", tooltip="To Train Concept LoRA and UnZip Image.")],
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
