"""A world before any training: random weights and random LoRAs, for identities that need no quality."""

from __future__ import annotations

import re
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.shapes_world.model import ShapesModel
from benchmarks.word_model import WordModel
from duolora_core import LowRank, kohya_state_dict
from duolora_core.lora.folded import FoldedLora
from tiny import ATTENTION

Model = TypeVar("Model", bound=WordModel)


def random_world(seed: int = 0) -> ShapesModel:
    """The shapes world with `random_weights`."""
    return random_weights(ShapesModel(), seed)


def random_weights(model: Model, seed: int = 0) -> Model:
    """Weights of deviation 1/√(fan in) that float16 holds exactly; v has a deviation of about 0.3."""
    generator = torch.Generator().manual_seed(seed)
    model = model.eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "text.words.weight":
            parameter.copy_(noise)
        elif parameter.ndim >= 2:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            norm = name.endswith("weight")
            parameter.copy_(norm + 0.1 * noise)
    model.unet.out[2].get_parameter("weight").mul_(0.3)
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model


def random_lora(model: WordModel, rank: int, seed: int) -> dict[str, Tensor]:
    """A kohya state dict in float32 on all attention projections, of about the weights' own strength."""
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, LowRank] = {}
    for name, layer in model.layout.layers.items():
        if re.search(ATTENTION, name):
            out, inputs = layer.shape
            up, down = torch.randn(out, rank, generator=generator), torch.randn(rank, inputs, generator=generator)
            layers[name] = LowRank(up * out**-0.5, down * inputs**-0.5)
    shapes = {name: model.layout.layers[name].shape for name in layers}
    return kohya_state_dict(FoldedLora(layers, {}, {}, shapes, 0.0), torch.float32)
