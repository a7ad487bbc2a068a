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
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.word_model import save_model
from benchmarks.word_pretraining import PretrainConfig, Pretraining, hushed, write_whole

from .batches import draw_batch
from .model import WEIGHTS, ArtModel, load_model
from .names import CONTENTS, STYLES, labels


def rate_of(learning_rate: float, step: int, warmup: int = 200, halving: int = 6000) -> float:
    """lr · min(1, step / warmup) / √(1 + step / halving)."""
    return learning_rate * min(1.0, step / warmup) / (1 + step / halving) ** 0.5


def pretraining(
    start: Path | None = None,
    batch: int = 32,
    rate: Callable[[int], float] = partial(rate_of, 1.5e-3),  # noqa: B008 - a function, no state
    bf16: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Pretraining[ArtModel]:
    """This world's, from its beginning or from weights alone."""
    make = partial(load_model, start) if start else ArtModel
    return Pretraining(make, draw_batch, PretrainConfig(batch, rate, 0.998, bf16, seed, device))


def quiet(model: ArtModel) -> ArtModel:
    """With its novel words hushed."""
    return hushed(model, [labels(table, "dev", "test") for table in (CONTENTS, STYLES)])


def main() -> None:
    """Trains, saves and logs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="stop there; a later call with more goes on")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in the forward")
    parser.add_argument("--state", type=Path, default=Path(".cache/art_world/pretraining.pt"))
    parser.add_argument("--start", type=Path, help="weights to start from where there is no state")
    parser.add_argument("--minutes", type=float, default=4, help="between saves")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the results")
    wanted = parser.parse_args()
    rate = partial(rate_of, wanted.learning_rate)
    training = pretraining(wanted.start, wanted.batch, rate, not wanted.float32, wanted.seed, wanted.device)
    if wanted.state.exists():
        training.load(torch.load(wanted.state, weights_only=True, map_location=wanted.device))
        _say(wanted.weights, f"goes on at step {training.step}")

    def save() -> None:
        write_whole(wanted.state, lambda path: torch.save(training.state(), path))
        write_whole(wanted.weights / "base.safetensors", lambda path: save_model(quiet(training.average), path))

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
