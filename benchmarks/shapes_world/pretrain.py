"""Pre-trains the world's base model on every known content in every known style.

    python -m benchmarks.shapes_world.pretrain --steps 8000

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

from .model import WEIGHTS, Prompt, ShapesModel, encode_picture, save_model
from .names import CONTENTS, STYLES, labels
from .render import render

MISSING_CONTENT, MISSING_STYLE = 0.12, 0.12
"""How often a word is left out of a prompt; both together are the unconditional case of guidance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--state", type=Path, default=Path(".cache/shapes_world.pt"), help="training state for --resume"
    )
    parser.add_argument("--resume", action="store_true")
    wanted = parser.parse_args()

    torch.manual_seed(wanted.seed)
    generator = torch.Generator().manual_seed(wanted.seed)
    model = ShapesModel()
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=wanted.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
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
        loss = _loss(model, known, wanted.batch, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(0.9985, step / (step + 10))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        running = float(loss.detach()) if step == first + 1 else 0.99 * running + 0.01 * float(loss.detach())
        if step % 100 == 0 or step == wanted.steps:
            seconds = (time.perf_counter() - started) / (step - first)
            _say(f"step {step}/{wanted.steps}  loss {running:.4f}  {seconds:.2f} s per step")
        if step % 1000 == 0 or step == wanted.steps:
            save_model(average, WEIGHTS / "base.safetensors")
            state = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
            torch.save(state | {"optimiser": optimiser.state_dict(), "generator": generator.get_state()}, wanted.state)


def _loss(
    model: ShapesModel, known: tuple[torch.Tensor, torch.Tensor], batch: int, generator: torch.Generator
) -> torch.Tensor:
    contents, styles = (table[torch.randint(len(table), (batch,), generator=generator)] for table in known)
    latents = encode_picture(render(contents, styles, generator))
    drop = torch.rand(batch, 2, generator=generator) < torch.tensor([MISSING_CONTENT, MISSING_STYLE])
    drop |= torch.rand(batch, 1, generator=generator) < 0.05  # the empty prompt, often enough for guidance
    prompts = [
        Prompt(None if no_content else int(content), None if no_style else int(style))
        for content, style, (no_content, no_style) in zip(contents, styles, drop.tolist(), strict=True)
    ]
    sigma = model.sigmas[torch.randint(len(model.sigmas), (batch,), generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    return model.loss(latents, sigma, noise, prompts)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    with (WEIGHTS / "base.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    main()
