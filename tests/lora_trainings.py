"""LoRAs in training for the tests: few layers of every kind, with random factors, and short trainings of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duolora_core import StepReport
from duolora_core.checkpoint.state import Checkpoint
from duolora_core.lora.folded import FoldedLora
from duolora_core.model.memory.planner import MemoryPlanner
from duolora_core.train_lora import (
    AttachedLoras,
    Example,
    TrainConfig,
    attach_loras,
    train_lora,
)
from duolora_core.train_lora.trainable_lora import Side, TrainableLora, new_lora
from tiny import TinyDenoiser, layout, pick, picture

LAYERS = pick(
    r"^(input_blocks\.3\.0\.op|middle_block\.0\.in_layers\.2|output_blocks\.8\.0\.skip_connection"
    r"|input_blocks\.4\.1\.transformer_blocks\.0\.attn1\.to_q|input_blocks\.4\.1\.proj_in"
    r"|middle_block\.1\.transformer_blocks\.[01]\.attn2\.to_[kvq]|output_blocks\.1\.1\.transformer_blocks\.0\.attn1\.to_v"
    r"|output_blocks\.[04]\.1\.transformer_blocks\.0\.(ff\.net\.2|attn2\.to_k))$"
)
CONFIG = TrainConfig(steps=3, learning_rate=0.01, batch=3, micro_batch=8, seed=4)

Loras = dict[Side, TrainableLora]


def grown(seed: int = 0, columns: bool = False, alpha: float | None = None, layers: Sequence[str] = LAYERS) -> Loras:
    """A content and a style LoRA with random factors, and with random open columns; the last layer is style's alone."""
    generator = torch.Generator().manual_seed(seed)
    loras: Loras = {
        "content": new_lora(layout(), layers[:-1], 3, alpha, seed + 1),
        "style": new_lora(layout(), layers, 2, alpha, seed + 2),
    }
    for lora in loras.values():
        for name, up in lora.up.items():
            lora.up[name] = 0.3 * torch.randn(up.shape, generator=generator)
            if columns:
                lora.columns[name] = torch.rand(len(up), generator=generator)
                lora.masks[name] = (torch.rand(len(up), generator=generator) < 0.5).float()
    return loras


def new(layers: Sequence[str] = LAYERS) -> Loras:
    """One new LoRA."""
    return {"content": new_lora(layout(), layers, 3)}


def deltas(lora: FoldedLora) -> dict[str, Tensor]:
    """{layer: ΔW (outputs, inputs)} in float64."""
    return {name: each.up.double() @ each.down.double() for name, each in lora.layers.items()}


def example(seed: int, size: tuple[int, int] = (8, 8)) -> Example:
    made = picture(seed, size)
    return Example(made.latent, made.own)


@dataclass(frozen=True)
class Outcome:
    reports: list[StepReport]
    loras: Loras
    checkpoints: list[Checkpoint]

    @property
    def numbers(self) -> Tensor:
        """Everything that was trained, in one row."""
        return torch.cat([tensor.flatten() for lora in self.loras.values() for _, tensor in lora.trained()])


def trained_loras(
    denoiser: TinyDenoiser,
    loras: Loras,
    config: TrainConfig = CONFIG,
    examples: Sequence[Example] = (example(1),),
    class_examples: Sequence[Example] = (),
    planner: MemoryPlanner | None = None,
    resume: Checkpoint | None = None,
) -> Outcome:
    reports: list[StepReport] = []
    checkpoints: list[Checkpoint] = []
    with attach_loras(denoiser.modules, loras) as attached:
        for report in train_lora(
            denoiser, attached, examples, config, class_examples=class_examples, planner=planner, resume=resume
        ):
            reports.append(report)
            checkpoints.append(report.checkpoint())
    return Outcome(reports, loras, checkpoints)


def stopped(denoiser: TinyDenoiser, attached: AttachedLoras, config: TrainConfig, after: int) -> None:
    """Takes so many steps and leaves."""
    steps = train_lora(denoiser, attached, [example(1)], config)
    for _ in range(after):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
