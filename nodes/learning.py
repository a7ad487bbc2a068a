"""One training from pictures from start to end: examples, new LoRAs, the loop with its live picture, what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..duolora_core import Denoiser, UNetLayout
from ..duolora_core.errors import SettingsError
from ..duolora_core.from_pictures import (
    Example,
    LearnConfig,
    LearnReport,
    LiveLoras,
    LoraForm,
    LoraInTraining,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    learn,
    learning_workload,
    unzip,
    unzip_loras,
)
from ..duolora_core.from_pictures.lora_in_training import Side
from ..duolora_core.memory.plans import Plans
from .classroom import Classroom, sizes_of
from .host.denoiser import Limits, training_denoiser, unet_layout
from .host.prompts import condition, encode, encode_alike, text_tokens
from .keeping import keeper_of, pictures_sha256
from .keeping_loras import LoraKeeper, LorasFile
from .learned import Learned, LearnedFrom, learned
from .live import LiveSample, Sampler
from .training import History, watched

Trained = Literal["content", "style", "both (B-LoRA)"]
"""What is trained from the pictures."""

Loras = Mapping[Side, LoraInTraining]
Method = Callable[[Denoiser, LiveLoras, Plans], Iterator[LearnReport]]


@dataclass(frozen=True)
class ConceptTask:
    """A concept to be learned.

    Attributes:
        pictures, class_pictures: IMAGE batches
        class_prompt: empty for no prior preservation
    """

    role: Trained
    pictures: Sequence[Tensor]
    prompt: str
    class_pictures: Sequence[Tensor]
    class_prompt: str


def train_concept(room: Classroom, task: ConceptTask, form: LoraForm, config: LearnConfig) -> Learned:
    """DreamBooth: one LoRA from the pictures of one concept, or B-LoRA's two, on a MODEL that is left as it was.

    Raises:
        DuoLoraError: with the reason and the mend; the host's interrupt exception on Cancel.
    """
    room.require_all()
    require_prompts({"prompt": task.prompt})
    with torch.inference_mode(False):
        layout = unet_layout(room.model.model)
        loras = _new_loras(layout, task.role, form, config.seed)
    _require_rank(loras, form.rank)
    file = LorasFile(loras, config.steps)
    keeper = _keeper(room, file, {"role": task.role, "form": asdict(form), "config": asdict(config)}, task)
    examples = room.examples(task.pictures, encode(room.clip, task.prompt), file.pictures)
    class_examples: list[Example] = []
    if config.prior_weight:
        class_examples = room.class_examples(task.class_prompt, task.class_pictures, config.seed, file.class_pictures)
    file.learning_from(examples, class_examples)
    sample = room.live_sample(task.prompt, config.seed)

    def method(denoiser: Denoiser, live: LiveLoras, plans: Plans) -> Iterator[LearnReport]:
        resume = keeper.state
        return learn(denoiser, live, examples, config, class_examples=class_examples, plans=plans, resume=resume)

    history = _run(room, layout, loras, [examples, class_examples], config, sample, keeper, method)
    source = LearnedFrom(
        room=room,
        method="B-LoRA" if len(loras) == 2 else "DreamBooth",
        prompt=task.prompt,
        own_prompts=dict.fromkeys(loras, task.prompt),
        # Of a picture whose content and style are learned apart, neither LoRA alone paints the whole.
        pictures=task.pictures if len(loras) == 1 else None,
        examples=examples,
        class_examples=class_examples,
        form=form,
        config=config,
    )
    result = learned(loras, history, source)
    keeper.finished()
    return result


@dataclass(frozen=True)
class UnzipTask:
    """A picture to be unzipped: an IMAGE batch, and its three prompts."""

    picture: Tensor
    prompt: str
    content_prompt: str
    style_prompt: str


def unzip_picture(room: Classroom, task: UnzipTask, form: LoraForm, config: UnzipConfig) -> Learned:
    """UnZipLoRA: a content and a style LoRA from one picture, on a MODEL that is left as it was; raises as above."""
    room.require_all()
    own: dict[Side, str] = {"content": task.content_prompt, "style": task.style_prompt}
    require_prompts({"prompt": task.prompt} | {f"{role}_prompt": prompt for role, prompt in own.items()})
    seed = config.learning.seed
    with torch.inference_mode(False):
        layout = unet_layout(room.model.model)
        loras = unzip_loras(layout, form, config, _engine_seed(seed))
    _require_rank(loras, form.rank)
    joint, content, style = encode_alike(room.clip, [task.prompt, task.content_prompt, task.style_prompt])
    file = LorasFile(loras, config.learning.steps)
    keeper = _keeper(room, file, {"form": asdict(form), "config": asdict(config)}, task)
    examples = room.examples([task.picture], joint, file.pictures, "picture")
    file.learning_from(examples, [])
    first = examples[0]
    prompts = UnzipPrompts(first.condition, *(condition(room.model, each, first.latent) for each in (content, style)))
    sample = room.live_sample(task.prompt, seed)

    def method(denoiser: Denoiser, live: LiveLoras, plans: Plans) -> Iterator[LearnReport]:
        latents = [each.latent for each in examples]
        return unzip(denoiser, live, latents, prompts, config, plans=plans, resume=keeper.state)

    samples = max(config.learning.batch, config.probes if config.separate_columns else 1)
    counted = replace(config.learning, batch=samples)
    history = _run(room, layout, loras, [examples], counted, sample, keeper, method)
    source = LearnedFrom(
        room=room,
        method="UnZipLoRA",
        prompt=task.prompt,
        own_prompts=own,
        pictures=None,
        examples=examples,
        class_examples=[],
        form=form,
        config=config,
    )
    result = learned(loras, history, source)
    keeper.finished()
    return result


def require_prompts(prompts: Mapping[str, str]) -> None:
    """Refuses a prompt that is empty."""
    for name, prompt in prompts.items():
        if not prompt:
            raise SettingsError(
                f"{name} is empty. Say what is to be seen, with a rare word as the trigger, such as 'a photo of sks "
                "dog' or 'a painting in wtrclr style'."
            )


def _keeper(room: Classroom, file: LorasFile, settings: Mapping[str, Any], task: ConceptTask | UnzipTask) -> LoraKeeper:
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
        "resolution": room.resolution,
        "compute": room.options.compute,
        "own pictures": asdict(room.options.self_made) if asked.get("class_prompt") else None,
    }
    return keeper_of(room.options.resume, decides, room.model, room.clip, [room.vae], file)


def _new_loras(layout: UNetLayout, role: Trained, form: LoraForm, seed: int) -> dict[Side, LoraInTraining]:
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
    room: Classroom,
    layout: UNetLayout,
    loras: Loras,
    examples: Sequence[Sequence[Example]],
    config: LearnConfig,
    sample: LiveSample | None,
    keeper: LoraKeeper,
    method: Method,
) -> History:
    """The loop on the live model; `examples` are those of each term of the loss, `config.batch` of each in a step."""
    every = [each for term in examples for each in term]
    sizes = [set(sizes_of(term)) for term in examples]
    in_one_forward = config.batch * max(sum(size in term for term in sizes) for size in sizes_of(every))
    tokens = max(text_tokens(each.condition) for each in every)
    work = learning_workload(layout, loras, sizes_of(every), in_one_forward, tokens)
    limits = Limits(config.micro_batch, room.options.checkpointing, room.options.compute)
    with (
        training_denoiser(room.model, work, limits) as (denoiser, plans),
        attach_loras(denoiser.modules, loras) as live,
    ):
        sampler = Sampler(sample, denoiser, live, "sum", plans.notes)
        return watched(method(denoiser, live, plans), config.steps, plans, keeper, sampler)
