"""Pre-trains the world's base model on every known subject in every known style, and on nameless pictures.

    python -m benchmarks.art_world.pretrain --steps 20000                 # goes on by itself where it was stopped
    python -m benchmarks.art_world.pretrain --start weights.safetensors   # from weights alone, with a new optimiser
    python -m benchmarks.art_world.pretrain --device cuda --batch 256

It can be stopped at any time (SIGINT, SIGTERM) and goes on from its state bit for bit as without the stop. The state
(weights, their mean, optimiser, random numbers, step) is written every few minutes to a file that git ignores, and with
it the mean weights to weights/base.safetensors; what is printed goes to weights/base.log too. The rate knows no last
step, so that a run may always go on: after warming up it falls with the square root of the steps.
"""

from __future__ import annotations

import argparse
import copy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .batches import draw_batch
from .model import WEIGHTS, WIDTH, ArtModel, load_model, save_model
from .names import CONTENTS, STYLES, labels

HUSHED = 0.4
"""How far a novel word's embedding stands from that of the missing word, as a deviation; known ones have about 1."""


@dataclass(frozen=True)
class PretrainConfig:
    """How the base model is trained.

    Attributes:
        warmup: steps until the rate is full
        halving: steps after which the rate has fallen by the square root of two
        mean: of the weights, over about 1 / (1 - mean) steps
        bf16: forward in bfloat16: faster where the processor can
    """

    batch: int = 32
    learning_rate: float = 1.5e-3
    warmup: int = 200
    halving: int = 6000
    mean: float = 0.998
    bf16: bool = True
    seed: int = 0
    device: str = "cpu"

    def rate(self, step: int) -> float:
        """lr · min(1, step / warmup) / √(1 + step / halving)."""
        return self.learning_rate * min(1.0, step / self.warmup) / (1 + step / self.halving) ** 0.5


class Pretraining:
    """A training that can be written down and taken up again at any step."""

    def __init__(self, config: PretrainConfig, start: Path | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.step, self.pictures = config, 0, 0
        self.loss, self.seconds = float("nan"), 0.0
        model = load_model(start).train().requires_grad_(True) if start else ArtModel()
        self.model = model.to(config.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(config.seed)
        self._parameters = list(self.model.parameters())
        self._sigmas = self.model.sigmas.cpu()
        self._optimiser = torch.optim.AdamW(
            self._parameters, config.learning_rate, (0.9, 0.99), weight_decay=0.0, fused=True
        )

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
        batch = draw_batch(config.batch, self._sigmas, self.generator)
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


def hushed(model: ArtModel) -> ArtModel:
    """Novel words as a large model knows rare tokens: they hardly mean more than a missing word, each a little else."""
    model = copy.deepcopy(model).cpu()
    words, text = model.text.words.weight.data, model.text
    generator = torch.Generator().manual_seed(0)
    for kind, table in enumerate((CONTENTS, STYLES)):
        novel = [text.first[kind] + label for label in labels(table, "dev", "test")]
        words[novel] = words[text.missing + kind] + HUSHED * torch.randn(len(novel), WIDTH, generator=generator)
    return model


def main() -> None:
    """Trains, saves and logs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="stop there; a later call with more goes on")
    parser.add_argument("--batch", type=int, default=PretrainConfig.batch)
    parser.add_argument("--learning-rate", type=float, default=PretrainConfig.learning_rate)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    parser.add_argument("--device", default=PretrainConfig.device)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in the forward")
    parser.add_argument("--state", type=Path, default=Path(".cache/art_world/pretraining.pt"))
    parser.add_argument("--start", type=Path, help="weights to start from where there is no state")
    parser.add_argument("--minutes", type=float, default=4, help="between saves")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the results")
    wanted = parser.parse_args()
    config = PretrainConfig(
        wanted.batch, wanted.learning_rate, bf16=not wanted.float32, seed=wanted.seed, device=wanted.device
    )
    training = Pretraining(config, wanted.start)
    if wanted.state.exists():
        training.load(torch.load(wanted.state, weights_only=True, map_location=wanted.device))
        _say(wanted.weights, f"goes on at step {training.step}")

    def save() -> None:
        write_whole(wanted.state, lambda path: torch.save(training.state(), path))
        write_whole(wanted.weights / "base.safetensors", lambda path: save_model(hushed(training.average), path))

    saved = time.monotonic()
    for stopped in until_stopped():
        if stopped or (training.step and training.step % 100 == 0):
            done = f"step {training.step}  loss {training.loss:.4f}  {training.pictures} pictures"
            _say(wanted.weights, f"{done}  {training.seconds / 60:.1f} minutes")
        if stopped or training.step >= wanted.steps:
            break
        if time.monotonic() - saved > 60 * wanted.minutes:
            save()
            saved = time.monotonic()
        training.advance()
    save()


def until_stopped() -> Iterator[bool]:
    """False until SIGINT or SIGTERM came, then True once."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: came.append(received))
    while not came:
        yield False
    yield True


def _say(folder: Path, line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "base.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    main()
