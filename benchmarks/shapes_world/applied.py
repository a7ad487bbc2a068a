"""A folded LoRA in a world's model: its weights are changed for a while and put back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.word_model import WordModel
from duolora_core.lora.folded import FoldedLora

Model = TypeVar("Model", bound=WordModel)


@contextmanager
def applied(model: Model, lora: FoldedLora) -> Generator[Model, None, None]:
    """Inside, every layer's weight is W + up · down; afterwards it is the very W again."""
    kept: dict[str, Tensor] = {}
    modules = model.live_modules
    try:
        for name, low_rank in lora.layers.items():
            weight = modules[name].get_parameter("weight")
            kept[name] = weight.data
            weight.data = weight.data + low_rank.delta().view(weight.shape)
        with torch.no_grad():
            yield model
    finally:
        for name, weight in kept.items():
            modules[name].get_parameter("weight").data = weight


def relative_norm(model: WordModel, lora: FoldedLora) -> float:
    """Median over layers of ‖ΔW‖₂ / ‖W‖₂, spectral norms: how gentle a LoRA is."""
    modules = model.live_modules
    ratios = [
        torch.linalg.matrix_norm(low_rank.delta(), ord=2)
        / torch.linalg.matrix_norm(modules[name].get_parameter("weight").flatten(1), ord=2)
        for name, low_rank in lora.layers.items()
    ]
    return float(torch.stack(ratios).median())
