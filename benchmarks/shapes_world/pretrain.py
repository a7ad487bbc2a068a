"""Pre-trains the world's base model on every known content in every known style, and on nameless pictures.

    python -m benchmarks.shapes_world.pretrain --bf16
    python -m benchmarks.shapes_world.pretrain --bf16 --start weights.safetensors     # go on from other weights

Writes weights/base.safetensors and appends what it prints to weights/base.log. Every 1,000 steps it saves, so that a
stopped run leaves the weights reached so far; `--resume` goes on from the last save.
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.word_model import save_model
from benchmarks.word_pretraining import Batch, PretrainConfig, Pretraining, hushed, write_whole

from .model import WEIGHTS, Prompt, ShapesModel, encode_picture, load_model
from .names import CONTENTS, STYLES, labels
from .render import SIZE, render
from .wild import nameless

NAMED, WILD_STYLE, WILD_CONTENT = 0.45, 0.25, 0.2
"""Shares of the pictures: both named, a named content in a nameless style, the reverse; the rest has no name at all."""
MISSING_CONTENT, MISSING_STYLE = 0.08, 0.08
"""How often a word is left out of a prompt all the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--state", type=Path, default=Path(".cache/shapes_world.pt"), help="training state for --resume"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--bf16", action="store_true", help="forward in bfloat16: faster where the CPU can")
    wanted = parser.parse_args()

    def rate(step: int) -> float:
        """A warm start and half a cosine to the last step."""
        falling = 0.5 * (1 + math.cos(math.pi * step / wanted.steps))
        return max(wanted.learning_rate * min(1.0, step / 200) * falling, 1e-6)

    make = partial(load_model, wanted.start) if wanted.start else ShapesModel
    training = Pretraining(make, draw_batch, PretrainConfig(wanted.batch, rate, 0.9985, wanted.bf16, wanted.seed))
    if wanted.resume:
        training.load(torch.load(wanted.state, weights_only=True))
    while training.step < wanted.steps:
        training.advance()
        step, last = training.step, training.step == wanted.steps
        if step % 100 == 0 or last:
            _say(f"step {step}/{wanted.steps}  loss {training.loss:.4f}  {training.seconds / step:.2f} s per step")
        if step % 1000 == 0 or last:
            novel = [labels(table, "dev", "test") for table in (CONTENTS, STYLES)]
            save_model(hushed(training.average, novel), WEIGHTS / "base.safetensors")
            write_whole(wanted.state, lambda path: torch.save(training.state(), path))


def draw_batch(batch: int, sigmas: Tensor, generator: torch.Generator) -> Batch:
    """A batch that depends on the generator alone; `sigmas` (timesteps,) are drawn from evenly."""
    known = torch.tensor(labels(CONTENTS, "known")), torch.tensor(labels(STYLES, "known"))
    contents, styles = (table[torch.randint(len(table), (batch,), generator=generator)] for table in known)
    kind = torch.rand(batch, generator=generator)
    wild_style = (kind >= NAMED) & (kind < NAMED + WILD_STYLE) | (kind >= NAMED + WILD_STYLE + WILD_CONTENT)
    wild_content = kind >= NAMED + WILD_STYLE
    wild = wild_style | wild_content
    pictures = torch.empty(batch, 3, SIZE, SIZE)
    pictures[~wild] = render(contents[~wild], styles[~wild], generator)
    contents[wild_content], styles[wild_style] = -1, -1
    pictures[wild] = nameless(contents[wild], styles[wild], generator)
    latents = encode_picture(pictures)
    drop = torch.rand(batch, 2, generator=generator) < torch.tensor([MISSING_CONTENT, MISSING_STYLE])
    drop |= torch.rand(batch, 1, generator=generator) < 0.05  # the empty prompt, often enough for guidance
    drop |= torch.stack([wild_content, wild_style], dim=1)
    prompts = [
        Prompt(None if no_content else int(content), None if no_style else int(style))
        for content, style, (no_content, no_style) in zip(contents, styles, drop.tolist(), strict=True)
    ]
    sigma = sigmas[torch.randint(len(sigmas), (batch,), generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    return Batch(latents, sigma, noise, prompts)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    with (WEIGHTS / "base.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    main()
