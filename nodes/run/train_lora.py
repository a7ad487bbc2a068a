"""One training from pictures from start to end: examples, new LoRAs, the loop with its live picture, what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...duolora_core import Denoiser, StepReport, UNetLayout
from ...duolora_core.checkpoint.state import Checkpoint
from ...duolora_core.errors import SettingsError
from ...duolora_core.model.memory.planner import MemoryPlanner
from ...duolora_core.train_lora import (
    AttachedLoras,
    Example,
    LoraConfig,
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
from ...duolora_core.train_lora.trainable_lora import Side, lora_tensors
from ..host.denoiser import training_denoiser, unet_layout
from ..host.prompts import encode, encode_alike, text_tokens
from .checkpoint import Checkpointer
from .examples import make_class_examples, make_examples, require_trainable, sizes_of
from .inputs import Inputs
from .preview_sampling import PreviewSampler
from .progress import run_training
from .trained_loras import TrainedLoras, TrainingSource, trained_loras

Trained = Literal["content", "style", "both (B-LoRA)"]
"""What is trained from the pictures."""

Loras = Mapping[Side, TrainableLora]
Method = Callable[[Denoiser, AttachedLoras, MemoryPlanner], Iterator[StepReport]]


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


def train_concept(inputs: Inputs, task: ConceptTask, form: LoraConfig, config: TrainConfig) -> TrainedLoras:
    """DreamBooth: one LoRA from the pictures of one concept, or B-LoRA's two, on a MODEL that is left as it was.

    Raises:
        DuoLoraError: with the reason and the fix; the host's interrupt exception on Cancel.
    """
    require_trainable(inputs)
    require_prompts({"prompt": task.prompt})
    layout, seed = unet_layout(inputs.model.model), _engine_seed(config.seed)
    loras = b_loras(layout, form, seed) if task.role == "both (B-LoRA)" else concept_lora(layout, task.role, form, seed)
    _require_rank(loras, form.rank)
    start, samples = Checkpoint(0, lora_tensors(loras)), bool(task.class_prompt)
    checkpointer = Checkpointer(inputs, start, config.steps, [inputs.vae], samples, task=task, form=form, config=config)
    known, known_class = (checkpointer.pictures.get(whose) for whose in ("pictures", "class_pictures"))
    examples = make_examples(inputs, task.pictures, encode(inputs.clip, task.prompt), known)
    class_examples: list[Example] = []
    if config.prior_weight:
        class_examples = make_class_examples(inputs, task.class_prompt, task.class_pictures, config.seed, known_class)
    checkpointer.trains_on(pictures=examples, class_pictures=class_examples)

    def method(denoiser: Denoiser, attached: AttachedLoras, planner: MemoryPlanner) -> Iterator[StepReport]:
        resume = checkpointer.resume
        return train_lora(
            denoiser, attached, examples, config, class_examples=class_examples, planner=planner, resume=resume
        )

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
    return _trained(source, layout, loras, config, config.batch, checkpointer, method)


@dataclass(frozen=True)
class UnzipTask:
    """A picture to be unzipped: an IMAGE batch, and its three prompts."""

    picture: Tensor
    prompt: str
    content_prompt: str
    style_prompt: str


def unzip_picture(inputs: Inputs, task: UnzipTask, form: LoraConfig, config: UnzipConfig) -> TrainedLoras:
    """UnZipLoRA: a content and a style LoRA from one picture, on a MODEL that is left as it was; raises as above."""
    require_trainable(inputs)
    own: dict[Side, str] = {"content": task.content_prompt, "style": task.style_prompt}
    require_prompts({"prompt": task.prompt} | {f"{role}_prompt": prompt for role, prompt in own.items()})
    layout, learning = unet_layout(inputs.model.model), config.learning
    loras = unzip_loras(layout, form, config, _engine_seed(learning.seed))
    _require_rank(loras, form.rank)
    joint, *apart = encode_alike(inputs.clip, [task.prompt, task.content_prompt, task.style_prompt])
    start = Checkpoint(0, lora_tensors(loras))
    checkpointer = Checkpointer(inputs, start, learning.steps, [inputs.vae], False, task=task, form=form, config=config)
    examples = make_examples(inputs, [task.picture], joint, checkpointer.pictures.get("pictures"), "picture")
    checkpointer.trains_on(pictures=examples)
    latents = [each.latent for each in examples]
    prompts = UnzipPrompts(examples[0].condition, *(inputs.conditions(each, latents[:1])[0] for each in apart))

    def method(denoiser: Denoiser, attached: AttachedLoras, planner: MemoryPlanner) -> Iterator[StepReport]:
        return unzip(denoiser, attached, latents, prompts, config, planner=planner, resume=checkpointer.resume)

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
    samples = max(learning.batch, config.probes if config.separate_columns else 1)
    return _trained(source, layout, loras, learning, samples, checkpointer, method)


def require_prompts(prompts: Mapping[str, str]) -> None:
    """Refuses a prompt that is empty."""
    for name, prompt in prompts.items():
        if not prompt:
            raise SettingsError(
                f"{name} is empty. Say what is to be seen, with a rare word as the trigger, such as 'a photo of sks "
                "dog' or 'a painting in wtrclr style'."
            )


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


def _trained(
    source: TrainingSource,
    layout: UNetLayout,
    loras: Loras,
    config: TrainConfig,
    samples: int,
    checkpointer: Checkpointer,
    method: Method,
) -> TrainedLoras:
    """The loop on the loaded model, and what it reached; a step evaluates so many samples of each term of the loss."""
    inputs, terms = source.inputs, [source.examples, source.class_examples]
    every = [each for term in terms for each in term]
    of_term = [set(sizes_of(term)) for term in terms]
    in_one_forward = samples * max(sum(size in term for term in of_term) for size in sizes_of(every))
    tokens = max(text_tokens(each.condition) for each in every)
    work = train_lora_workload(layout, loras, sizes_of(every), in_one_forward, tokens)
    preview = inputs.preview_sampling(inputs.clip, source.prompt, config.seed)
    with (
        training_denoiser(inputs.model, work, inputs.limits(config.micro_batch)) as (denoiser, planner),
        attach_loras(denoiser.modules, loras) as attached,
    ):
        sampler = PreviewSampler(preview, denoiser, attached, "sum", planner.notes)
        log = run_training(method(denoiser, attached, planner), config.steps, planner, checkpointer, sampler)
    result = trained_loras(loras, log, source)
    checkpointer.finished()
    return result
