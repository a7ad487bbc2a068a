"""Pre-trains the world's base model on every known content in every known style, and on nameless pictures.

    python -m benchmarks.shapes_world.pretrain --bf16
    python -m benchmarks.shapes_world.pretrain --bf16 --start weights.safetensors     # go on from other weights

Writes weights/base.safetensors and appends what it prints to weights/base.log. Every 1,000 steps it saves, so that a
stopped run leaves the weights reached so far; `--resume` goes on from the last save.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from .model import WEIGHTS, WIDTH, Prompt, ShapesModel, encode_picture, load_model, save_model
from .names import CONTENTS, STYLES, labels
from .render import SIZE, render
from .wild import nameless

NAMED, WILD_STYLE, WILD_CONTENT = 0.45, 0.25, 0.2
"""Shares of the pictures: both named, a named content in a nameless style, the reverse; the rest has no name at all."""
MISSING_CONTENT, MISSING_STYLE = 0.08, 0.08
"""How often a word is left out of a prompt all the same."""
HUSHED = 0.4
"""How far a novel word's embedding stands from that of the missing word, as a deviation; known ones have about 1."""


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

    torch.manual_seed(wanted.seed)
    generator = torch.Generator().manual_seed(wanted.seed)
    model = load_model(wanted.start).train().requires_grad_(True) if wanted.start else ShapesModel()
    average = copy.deepcopy(model).requires_grad_(False)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, wanted.learning_rate, (0.9, 0.99), weight_decay=0.0, fused=True)
    wanted.state.parent.mkdir(parents=True, exist_ok=True)
    first = 0
    if wanted.resume:
        state = torch.load(wanted.state, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        first = int(state["step"])
    known = torch.tensor(labels(CONTENTS, "known")), torch.tensor(labels(STYLES, "known"))

    started, running = time.perf_counter(), 0.0
    for step in range(first + 1, wanted.steps + 1):
        warm = min(1.0, step / 200)
        rate = wanted.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / wanted.steps))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, 1e-6)
        latents, sigma, noise, prompts = _batch(model, known, wanted.batch, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=wanted.bf16):
            loss = model.loss(latents, sigma, noise, prompts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(0.9985, step / (step + 10))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), parameters, strict=True):
                mean.lerp_(value, 1 - decay)
        running = float(loss.detach()) if step == first + 1 else 0.99 * running + 0.01 * float(loss.detach())
        if step % 100 == 0 or step == wanted.steps:
            seconds = (time.perf_counter() - started) / (step - first)
            _say(f"step {step}/{wanted.steps}  loss {running:.4f}  {seconds:.2f} s per step")
        if step % 1000 == 0 or step == wanted.steps:
            save_model(_hushed(average), WEIGHTS / "base.safetensors")
            state = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
            torch.save(state | {"optimiser": optimiser.state_dict(), "generator": generator.get_state()}, wanted.state)


def _batch(
    model: ShapesModel, known: tuple[Tensor, Tensor], batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, list[Prompt]]:
    """Latents, noise levels, noise and prompts."""
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
    sigma = model.sigmas[torch.randint(len(model.sigmas), (batch,), generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    return latents, sigma, noise, prompts


def _hushed(model: ShapesModel) -> ShapesModel:
    """Novel words as a large model knows rare tokens: they hardly mean more than a missing word, each a little else."""
    model = copy.deepcopy(model)
    words, missing = model.text.words.weight.data, len(CONTENTS) + len(STYLES)
    generator = torch.Generator().manual_seed(0)
    for table, first, silent in ((CONTENTS, 0, missing), (STYLES, len(CONTENTS), missing + 1)):
        novel = [first + label for label in labels(table, "dev", "test")]
        words[novel] = words[silent] + HUSHED * torch.randn(len(novel), WIDTH, generator=generator)
    return model


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    with (WEIGHTS / "base.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    main()
