"""Pre-training of a word model: a training that can be written down and taken up again at any step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.word_model import WordModel

HUSHED = 0.4
"""How far a novel word's embedding stands from that of the missing word, as a deviation; known ones have about 1."""


@dataclass(frozen=True)
class Batch:
    """Latents (n, channels, h, w), sigma (n,), noise as the latents, and n prompts."""

    latents: Tensor
    sigma: Tensor
    noise: Tensor
    prompts: Sequence[Any]


Draw = Callable[[int, Tensor, torch.Generator], Batch]
"""So many pictures, that depend on the generator alone; the noise levels (timesteps,) are drawn from evenly."""


@dataclass(frozen=True)
class PretrainConfig:
    """How a base model is trained.

    Attributes:
        rate: the learning rate of a step, counted from 1
        mean: of the weights, over about 1 / (1 - mean) steps
        bf16: forward in bfloat16: faster where the processor can
    """

    batch: int
    rate: Callable[[int], float]
    mean: float
    bf16: bool
    seed: int = 0
    device: str = "cpu"


Model = TypeVar("Model", bound=WordModel)


class Pretraining(Generic[Model]):
    """Model, mean of its weights, optimiser and random numbers."""

    def __init__(self, make: Callable[[], Model], draw: Draw, config: PretrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.step, self.pictures = config, 0, 0
        self.loss, self.seconds = float("nan"), 0.0
        self.model = make().train().requires_grad_(True).to(config.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(config.seed)
        self._draw = draw
        self._parameters = list(self.model.parameters())
        self._sigmas = self.model.sigmas.cpu()
        self._optimiser = torch.optim.AdamW(self._parameters, 0.0, (0.9, 0.99), weight_decay=0.0, fused=True)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "pictures": self.pictures,
            "loss": self.loss,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step, self.pictures = state["step"], state["pictures"]
        self.loss, self.seconds = state["loss"], state["seconds"]

    def advance(self) -> None:
        """One step."""
        config, started = self.config, time.perf_counter()
        self.step += 1
        self.pictures += config.batch
        for group in self._optimiser.param_groups:
            group["lr"] = config.rate(self.step)
        batch = self._draw(config.batch, self._sigmas, self.generator)
        latents, sigma, noise = (x.to(config.device) for x in (batch.latents, batch.sigma, batch.noise))
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.bf16):
            loss = self.model.loss(latents, sigma, noise, batch.prompts)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        decay = min(config.mean, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self._parameters, strict=True):
                mean.lerp_(value, 1 - decay)
        found = float(loss.detach())
        self.loss = found if self.step == 1 or self.loss != self.loss else 0.99 * self.loss + 0.01 * found
        self.seconds += time.perf_counter() - started


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes beside the file and puts it in its place at once, so that a killed run leaves the earlier one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    write(beside)
    beside.replace(path)


def hushed(model: Model, novel: Sequence[Sequence[int]]) -> Model:
    """Novel words as a large model knows rare tokens: they hardly mean more than a missing word, each a little else.

    Args:
        novel: their labels, for each kind of word that has any
    """
    model = copy.deepcopy(model).cpu()
    words, text = model.text.words.weight.data, model.text
    generator = torch.Generator().manual_seed(0)
    for kind, chosen in enumerate(novel):
        rows = [text.first[kind] + label for label in chosen]
        noise = torch.randn(len(rows), words.shape[1], generator=generator)
        words[rows] = words[text.missing + kind] + HUSHED * noise
    return model
