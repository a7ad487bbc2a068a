"""One training from pictures from start to end: examples, new LoRAs, the loop with its live picture, what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...duolora_core import Denoiser, UNetLayout
from ...duolora_core.errors import SettingsError
from ...duolora_core.model.memory.planner import MemoryPlanner
from ...duolora_core.train_lora import (
    AttachedLoras,
    Example,
    LoraConfig,
    LoraStepReport,
    TrainableLora,
    TrainConfig,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    train_lora,
    train_lora_workload,
    unzip,
    unzip_loras,
)
from ...duolora_core.train_lora.trainable_lora import Side, loras_at_start
from ..host.denoiser import Limits, training_denoiser, unet_layout
from ..host.prompts import condition, encode, encode_alike, text_tokens
from .checkpoint import Checkpointer, checkpointer_of, pictures_sha256
from .preview_sampling import PreviewSampler, PreviewSampling
from .progress import TrainingLog, run_training
from .trained_loras import TrainedLoras, TrainingSource, trained_loras
from .training_inputs import TrainingInputs, sizes_of

Trained = Literal["content", "style", "both (B-LoRA)"]
"""What is trained from the pictures."""

Loras = Mapping[Side, TrainableLora]
Method = Callable[[Denoiser, AttachedLoras, MemoryPlanner], Iterator[LoraStepReport]]


@dataclass(frozen=True)
class ConceptTask:
    """A subject or a style to be trained.

    Attributes:
        pictures, class_pictures: IMAGE batches
        class_prompt: empty for no prior preservation
    """

    role: Trained
    pictures: Sequence[Tensor]
    prompt: str
    class_pictures: Sequence[Tensor]
    class_prompt: str


def train_concept(inputs: TrainingInputs, task: ConceptTask, form: LoraConfig, config: TrainConfig) -> TrainedLoras:
    """DreamBooth: one LoRA from the pictures of one concept, or B-LoRA's two, on a MODEL that is left as it was.

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    inputs.require_all()
    require_prompts({"prompt": task.prompt})
    with torch.inference_mode(False):
        layout = unet_layout(inputs.model.model)
        loras = _new_loras(layout, task.role, form, config.seed)
    _require_rank(loras, form.rank)
    settings = {"role": task.role, "form": asdict(form), "config": asdict(config)}
    checkpointer = _checkpointer(inputs, loras, config.steps, settings, task)
    known, known_class = (checkpointer.pictures.get(whose) for whose in ("pictures", "class_pictures"))
    examples = inputs.examples(task.pictures, encode(inputs.clip, task.prompt), known)
    class_examples: list[Example] = []
    if config.prior_weight:
        class_examples = inputs.class_examples(task.class_prompt, task.class_pictures, config.seed, known_class)
    checkpointer.trains_on(pictures=examples, class_pictures=class_examples)
    sample = inputs.preview_sampling(task.prompt, config.seed)

    def method(denoiser: Denoiser, attached: AttachedLoras, planner: MemoryPlanner) -> Iterator[LoraStepReport]:
        resume = checkpointer.resume
        return train_lora(
            denoiser, attached, examples, config, class_examples=class_examples, planner=planner, resume=resume
        )

    log = _run(inputs, layout, loras, [examples, class_examples], config, sample, checkpointer, method)
    source = TrainingSource(
        inputs=inputs,
        method="B-LoRA" if len(loras) == 2 else "DreamBooth",
        prompt=task.prompt,
        per_lora_prompts=dict.fromkeys(loras, task.prompt),
        # Of a picture whose content and style are trained apart, neither LoRA alone paints the whole.
        pictures=task.pictures if len(loras) == 1 else None,
        examples=examples,
        class_examples=class_examples,
        form=form,
        config=config,
    )
    result = trained_loras(loras, log, source)
    checkpointer.finished()
    return result


@dataclass(frozen=True)
class UnzipTask:
    """A picture to be unzipped: an IMAGE batch, and its three prompts."""

    picture: Tensor
    prompt: str
    content_prompt: str
    style_prompt: str


def unzip_picture(inputs: TrainingInputs, task: UnzipTask, form: LoraConfig, config: UnzipConfig) -> TrainedLoras:
    """UnZipLoRA: a content and a style LoRA from one picture, on a MODEL that is left as it was; raises as above."""
    inputs.require_all()
    own: dict[Side, str] = {"content": task.content_prompt, "style": task.style_prompt}
    require_prompts({"prompt": task.prompt} | {f"{role}_prompt": prompt for role, prompt in own.items()})
    seed = config.learning.seed
    with torch.inference_mode(False):
        layout = unet_layout(inputs.model.model)
        loras = unzip_loras(layout, form, config, _engine_seed(seed))
    _require_rank(loras, form.rank)
    joint, content, style = encode_alike(inputs.clip, [task.prompt, task.content_prompt, task.style_prompt])
    settings = {"form": asdict(form), "config": asdict(config)}
    checkpointer = _checkpointer(inputs, loras, config.learning.steps, settings, task)
    examples = inputs.examples([task.picture], joint, checkpointer.pictures.get("pictures"), "picture")
    checkpointer.trains_on(pictures=examples)
    first = examples[0]
    prompts = UnzipPrompts(first.condition, *(condition(inputs.model, each, first.latent) for each in (content, style)))
    sample = inputs.preview_sampling(task.prompt, seed)

    def method(denoiser: Denoiser, attached: AttachedLoras, planner: MemoryPlanner) -> Iterator[LoraStepReport]:
        latents = [each.latent for each in examples]
        return unzip(denoiser, attached, latents, prompts, config, planner=planner, resume=checkpointer.resume)

    samples = max(config.learning.batch, config.probes if config.separate_columns else 1)
    counted = replace(config.learning, batch=samples)
    log = _run(inputs, layout, loras, [examples], counted, sample, checkpointer, method)
    source = TrainingSource(
        inputs=inputs,
        method="UnZipLoRA",
        prompt=task.prompt,
        per_lora_prompts=own,
        pictures=None,
        examples=examples,
        class_examples=[],
        form=form,
        config=config,
    )
    result = trained_loras(loras, log, source)
    checkpointer.finished()
    return result


def require_prompts(prompts: Mapping[str, str]) -> None:
    """Refuses a prompt that is empty."""
    for name, prompt in prompts.items():
        if not prompt:
            raise SettingsError(
                f"{name} is empty. Say what is to be seen, with a rare word as the trigger, such as 'a photo of sks "
                "dog' or 'a painting in wtrclr style'."
            )


def _checkpointer(
    inputs: TrainingInputs, loras: Loras, steps: int, settings: Mapping[str, Any], task: ConceptTask | UnzipTask
) -> Checkpointer:
    """Memory settings decide nothing of a training's course, so they are left out of what it is known by."""
    config: dict[str, Any] = dict(settings["config"])
    config.pop("micro_batch", None)
    if "learning" in config:
        config["learning"] = {name: value for name, value in config["learning"].items() if name != "micro_batch"}
    asked = {
        name: pictures_sha256([value] if isinstance(value, Tensor) else value) if "picture" in name else value
        for name, value in vars(task).items()
    }
    decides = {
        **settings,
        "config": config,
        "task": asked,
        "resolution": inputs.resolution,
        "compute": inputs.options.compute,
        "own pictures": asdict(inputs.options.sampled_images) if asked.get("class_prompt") else None,
    }
    start = loras_at_start(loras)
    return checkpointer_of(inputs.options.resume, decides, inputs.model, inputs.clip, [inputs.vae], start, steps)


def _new_loras(layout: UNetLayout, role: Trained, form: LoraConfig, seed: int) -> dict[Side, TrainableLora]:
    if role == "both (B-LoRA)":
        return b_loras(layout, form, _engine_seed(seed))
    return concept_lora(layout, role, form, _engine_seed(seed))


def _engine_seed(seed: int) -> int:
    """Within the range in which the engine can count on from it."""
    return seed % 2**63


def _require_rank(loras: Loras, rank: int) -> None:
    for lora in loras.values():
        for name, (out, *inputs) in lora.shapes.items():
            most = min(out, *inputs[:1])
            if rank > most:
                raise SettingsError(
                    f"rank {rank} is larger than layer {name} itself, which is {out} x {inputs[0]}. Set it to "
                    f"{most} at most; 8 to 128 is common."
                )


def _run(
    inputs: TrainingInputs,
    layout: UNetLayout,
    loras: Loras,
    examples: Sequence[Sequence[Example]],
    config: TrainConfig,
    sample: PreviewSampling | None,
    checkpointer: Checkpointer,
    method: Method,
) -> TrainingLog:
    """The loop on the loaded model; `examples` are those of each term of the loss, `config.batch` of each in a step."""
    every = [each for term in examples for each in term]
    sizes = [set(sizes_of(term)) for term in examples]
    in_one_forward = config.batch * max(sum(size in term for term in sizes) for size in sizes_of(every))
    tokens = max(text_tokens(each.condition) for each in every)
    work = train_lora_workload(layout, loras, sizes_of(every), in_one_forward, tokens)
    limits = Limits(config.micro_batch, inputs.options.checkpointing, inputs.options.compute)
    with (
        training_denoiser(inputs.model, work, limits) as (denoiser, planner),
        attach_loras(denoiser.modules, loras) as attached,
    ):
        sampler = PreviewSampler(sample, denoiser, attached, "sum", planner.notes)
        return run_training(method(denoiser, attached, planner), config.steps, planner, checkpointer, sampler)
