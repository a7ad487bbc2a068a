"""A ComfyUI MODEL as the engine's Denoiser."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import torch
from torch import Tensor, nn

from ...duolora_core.errors import ModelMismatchError
from ...duolora_core.model.denoiser import Prediction
from ...duolora_core.model.layout import UNetLayout, layout_from_shapes
from ...duolora_core.model.memory.activations import block_levels
from ...duolora_core.model.memory.estimate import (
    CHECKPOINTED_LEVELS,
    Checkpointing,
    MemoryPlan,
    Workload,
    candidate_plans,
    fits,
    plans_that_fit,
)
from ...duolora_core.model.memory.planner import MemoryPlanner
from .attention import differentiable_attention, no_cudnn_attention
from .casts import casts_not_held
from .gradient_checkpointing import checkpointable
from .matmul import plain_matmul
from .memory import free_memory, is_out_of_memory, load_whole, plan_note, release, storage
from .precision import COMPUTE_DTYPES, own_precision
from .progress import tell
from .weights import differentiable, plain_clone


class HostDenoiser:
    """Runs the loaded model through its own `apply_model`, with its patches, wrappers and sampling in force."""

    def __init__(self, model: comfy.model_base.BaseModel, transformer_options: Mapping[str, Any], device: torch.device):
        self._model = model
        self._options = dict(transformer_options)
        self._device = device
        self.modules: Mapping[str, nn.Module] = dict(model.diffusion_model.named_modules())
        self.layout = unet_layout(model)
        self.sigmas = model.model_sampling.sigmas.detach().to(device, torch.float32, copy=True)
        self.prediction: Prediction = prediction_of(model.model_sampling)

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Mapping[str, Any]]) -> Tensor:
        """(batch, channels, h, w) x0 estimates. Conditions are as `prompts.condition` made them, one per sample.

        Raises the host's own interrupt exception when the artist pressed Cancel.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        batched = {key: conditions[0][key].concat([other[key] for other in conditions[1:]]) for key in conditions[0]}
        options = self._options | {
            "optimized_attention_override": differentiable_attention,
            "cond_or_uncond": [0] * len(conditions),
            "sigmas": sigma,
        }
        return self._model.apply_model(x, sigma, transformer_options=options, **batched)


@dataclass(frozen=True)
class Limits:
    """What the artist decided about memory.

    Attributes:
        micro_batch: samples per forward, at most
        checkpointing: of all blocks, or of none until memory runs out; None: as memory needs it
        compute: one of COMPUTE_DTYPES
    """

    micro_batch: int
    checkpointing: bool | None
    compute: str

    @property
    def allowed(self) -> Collection[Checkpointing]:
        """What the training may try."""
        return ("all",) if self.checkpointing else CHECKPOINTED_LEVELS

    @property
    def wanted(self) -> Collection[Checkpointing]:
        """What the training may start with."""
        return ("none",) if self.checkpointing is False else self.allowed


@contextmanager
def training_denoiser(
    patcher: Any, work: Workload, limits: Limits
) -> Generator[tuple[HostDenoiser, MemoryPlanner], None, None]:
    """Loads a MODEL and lends it for training, with the plans that fit; outside it is bit for bit what it was.

    Args:
        patcher: the MODEL input; its clone is loaded, so its patches are in force and other clones are not touched

    Raises:
        OutOfMemoryError: the model cannot be held in memory whole.
    """
    patcher = plain_clone(patcher)
    if COMPUTE_DTYPES[limits.compute] is not None:
        patcher.set_model_compute_dtype(COMPUTE_DTYPES[limits.compute])
    held, device = storage(patcher), patcher.load_device
    steps = candidate_plans(work, held, limits.micro_batch, limits.allowed)
    load_whole(patcher, steps[0][1], steps[-1][1])
    free = free_memory(device)
    steps = plans_that_fit(steps, free, limits.wanted)
    model, note = patcher.model, plan_note(*steps[0], free)
    if not fits(steps[0][1], free):
        tell(note)  # now, because where a driver takes main memory instead, the first step alone can last for minutes
    with (
        own_precision(device, held.element_size),
        no_cudnn_attention(),
        plain_matmul(model),
        differentiable(model),
        casts_not_held(model),
        checkpointable(model.diffusion_model, block_levels(work.layout)) as switch,
    ):

        def on_change(plan: MemoryPlan) -> None:
            release()
            switch.plan = plan

        planner = MemoryPlanner([plan for plan, _ in steps], out_of_memory=is_out_of_memory, on_change=on_change)
        planner.notes.append(note)
        yield HostDenoiser(model, patcher.model_options.get("transformer_options", {}), device), planner


def require_sdxl(patcher: Any) -> None:
    """Refuses models that are not of the SDXL family, before any work is done.

    Raises:
        ModelMismatchError: names what the model is instead.
    """
    if not isinstance(patcher.model, comfy.model_base.SDXL):
        raise ModelMismatchError(
            f"This model is a {type(patcher.model).__name__}; DuoLoRA merges LoRAs on the SDXL family (SDXL, Pony, "
            "Illustrious, NoobAI, SSD-1B, Segmind-Vega). Connect such a checkpoint."
        )
    prediction_of(patcher.get_model_object("model_sampling"))


def unet_layout(model: comfy.model_base.BaseModel) -> UNetLayout:
    """The layout of a model's UNet.

    Raises:
        ModelMismatchError: the UNet is compiled, so that its layers cannot be reached, or quantised in a way that the
            host computes with kernels of its own.
    """
    modules = {
        name: module
        for name, module in model.diffusion_model.named_modules()
        if getattr(module, "weight", None) is not None
    }
    if any(name.startswith("_orig_mod.") for name in modules):
        raise ModelMismatchError("This model is compiled. Take the Torch Compile node out of the way to the merge.")
    for name, module in modules.items():
        if module.weight.ndim == 2 and not isinstance(module, nn.Linear):
            raise ModelMismatchError(
                f"This checkpoint is quantised: layer {name} is not an ordinary linear layer. Load one in fp16, bf16 "
                "or fp32; where memory is short, with the weight_dtype fp8_e4m3fn."
            )
    return layout_from_shapes({name: tuple(module.weight.shape) for name, module in modules.items()})


def prediction_of(sampling: Any) -> Prediction:
    """What the network predicts, from the host's model_sampling.

    Raises:
        ModelMismatchError: neither eps- nor v-prediction.
    """
    unsupported = (comfy.model_sampling.EDM, comfy.model_sampling.X0)
    if isinstance(sampling, comfy.model_sampling.EPS) and not isinstance(sampling, unsupported):
        return "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"
    kinds = ", ".join(cls.__name__ for cls in type(sampling).__mro__[1:3])
    raise ModelMismatchError(f"This model samples with {kinds}; DuoLoRA trains eps- and v-prediction models.")
