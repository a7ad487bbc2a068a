"""ZipLoRA (arXiv 2311.13600), trained on the same loop as DuoLoRA: a mask over the channels of each LoRA's ΔW.

    with attach_zip(denoiser.modules, pair) as zipped:
        for report in zip_lora(denoiser, zipped, content_pictures, style_pictures, config):
            ...
    folded = zipped.fold()

    y = W x + m_c ⊙ (U_c D_c x) + m_s ⊙ (U_s D_s x)        masks over the outputs, as in the paper
    y = W x + U_c D_c (m_c ⊙ x) + U_s D_s (m_s ⊙ x)        masks over the inputs, as in ziplora-pytorch
    L = MSE(merged, content on x_c, p_c) + MSE(merged, style on x_s, p_s) + λ · mean over layers of mean |m_c · m_s|

Both masks fold into a factor (rows of up, columns of down), so the result is an ordinary LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.state import Checkpoint
from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank
from ..merge.config import MergeConfig
from ..merge.gated import GatedLora, along_channels, hooked
from ..merge.gates import Gates, Slot
from ..merge.losses import Penalty
from ..merge.roles import layer_roles
from ..merge.stack import LoraPair
from ..merge.teachers import Picture
from ..merge.trainer import StepReport, train_gates
from ..merge.workload import stack_workload
from ..model.denoiser import Denoiser
from ..model.memory.estimate import Workload
from ..model.memory.planner import MemoryPlanner
from .training_free import stack, with_layers

Axis = Literal["output", "input"]


@dataclass(frozen=True)
class ZipLoraConfig:
    """How the masks are trained. Steps, learning rate and λ are the paper's.

    Attributes:
        steps, learning_rate, weight_decay, clip: AdamW over the masks; clip bounds the gradient's norm
        similarity_weight: λ
        micro_batch: samples per forward; the result does not depend on it
        seed: of noise, timesteps and the choice of pictures
    """

    steps: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    clip: float = math.inf
    similarity_weight: float = 0.01
    micro_batch: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        self.loop()  # checks the bounds

    def loop(self) -> MergeConfig:
        """The same settings for the shared loop, whose cycle loss is off."""
        return MergeConfig(
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            clip=self.clip,
            cycle_weight=0.0,
            reconstruction_weight=1.0,
            micro_batch=self.micro_batch,
            seed=self.seed,
        )


def open_masks(pair: LoraPair, axis: Axis = "output") -> Gates:
    """All ones: the plain sum. One number per channel of the axis, for each LoRA that covers the layer.

    They are held as the gates are, in one flat vector. A convolution's input channel has one number for its whole
    kernel window. `values.numel()` is the count of trainable parameters.
    """
    slots: dict[str, Slot] = {}
    start = 0
    for name in pair.names:
        width = pair.layout.layers[name].shape[0 if axis == "output" else 1]
        slots[name] = Slot(start, width * (name in pair.content), width * (name in pair.style))
        start = slots[name].stop
    return Gates(torch.ones(start), slots)


class ZippedLora(GatedLora):
    """A GatedLora whose gates stand on channels instead of ranks. Made by `attach_zip`; `gates` holds the masks."""

    def __init__(self, pair: LoraPair, masks: Gates, axis: Axis):
        super().__init__(pair, masks)
        self.pair = pair
        self.axis = axis

    def add(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """A layer's output for the input x, (batch, …), plus what both masked LoRAs change."""
        self._require_rows(name, x)
        mask = self._gate(name, x)  # (batch, channels of content + channels of style)
        stack, width = self._stack(name, module, x), self.gates.slots[name].content_rank
        sides = (
            (stack.up[:, part], stack.down[part], part_mask)
            for part, part_mask in zip(stack.parts, (mask[:, :width], mask[:, width:]), strict=True)
        )
        total = [self._side(module, x, *side) for side in sides if side[2].shape[1]]
        return output + (total[0] if len(total) == 1 else total[0] + total[1])

    def _side(self, module: nn.Module, x: Tensor, up: Tensor, down: Tensor, mask: Tensor) -> Tensor:
        if self.axis == "input":
            return _through(module, x * along_channels(mask, x, module), up, down)
        y = _through(module, x, up, down)
        return y * along_channels(mask, y, module)

    def fold(self, *, content_strength: float = 1.0, style_strength: float = 1.0) -> FoldedLora:
        """The ordinary LoRA of the masks reached so far; text encoders and offsets are summed at the strengths."""
        masks = self.gates.copy()
        masks.values = masks.values.cpu()
        content = {name: self._masked(name, lora, masks.content(name)) for name, lora in self.pair.content.items()}
        style = {name: self._masked(name, lora, masks.style(name)) for name, lora in self.pair.style.items()}
        folded = with_layers(self.pair, content, style)
        return stack(folded, content_strength=content_strength, style_strength=style_strength)

    def _masked(self, name: str, low_rank: LowRank, mask: Tensor) -> LowRank:
        mask = mask.to(low_rank.up)
        if self.axis == "output":
            return LowRank(mask[:, None] * low_rank.up, low_rank.down)
        window = low_rank.down.shape[1] // len(mask)  # kernel positions lie within their input channel
        return LowRank(low_rank.up, low_rank.down * mask.repeat_interleave(window))


def _through(module: nn.Module, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """ΔW x with ΔW = up · down in the shapes of the module, (batch, …)."""
    if isinstance(module, nn.Conv2d):
        return F.conv2d(F.conv2d(x, down, None, module.stride, module.padding, module.dilation), up)
    return F.linear(F.linear(x, down), up)


@contextmanager
def attach_zip(
    modules: Mapping[str, nn.Module], pair: LoraPair, axis: Axis = "output"
) -> Generator[ZippedLora, None, None]:
    """Attaches both LoRAs behind open masks to a model's layers and takes them off again; raises as `attach`."""
    with hooked(modules, ZippedLora(pair, open_masks(pair, axis), axis)) as zipped:
        yield zipped


def zip_lora(
    denoiser: Denoiser,
    zipped: ZippedLora,
    content: Sequence[Picture],
    style: Sequence[Picture],
    config: ZipLoraConfig,
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[StepReport]:
    """Trains the masks of an attached pair and yields after every step; raises as `train`.

    Each picture is seen under its own prompt; `planner` and `resume` as in `train`. `zipped.gates` always holds the
    masks reached so far. In the reports `losses` has the term `similarity`, and `blocks` counts mask entries, where
    those of gates count rank components.
    """
    roles = layer_roles(zipped.pair.layout, "none")
    penalty = Penalty("similarity", config.similarity_weight, mask_similarity)
    return train_gates(denoiser, zipped, content, style, roles, config.loop(), penalty, planner, resume)


def zip_workload(pair: LoraPair, axis: Axis, sizes: Sequence[tuple[int, int]], text_tokens: int = 77) -> Workload:
    """What `zip_lora` trains, for the estimate of its memory; arguments as of `merge_workload`.

    A mask keeps the channels that it multiplies, over outputs those of each LoRA by itself. Layers that share their
    input are counted one by one, so over inputs this is an upper bound.
    """
    kept: dict[str, int] = {}
    for name in pair.names:
        outputs, inputs = pair.layout.layers[name].shape[:2]
        kept[name] = outputs * ((name in pair.content) + (name in pair.style)) if axis == "output" else inputs
    return stack_workload(pair, kept, sizes, students=2, teachers=2, text_tokens=text_tokens)


def mask_similarity(masks: Gates) -> Tensor:
    """The mean over layers that both LoRAs cover of mean |m_c · m_s|, shape (): 0 where no channel is shared."""
    shared = [name for name, slot in masks.slots.items() if slot.content_rank and slot.style_rank]
    terms = [(masks.content(name) * masks.style(name)).abs().mean() for name in shared]
    return torch.stack(terms).mean() if terms else masks.values.sum() * 0.0
