"""The judge: which subject and which style a picture shows, and how far it is from the real drawing.

It has seen every drawing, the novel ones too, moved, scaled and worn, and has no part in any training but its own.
`python -m benchmarks.art_world.judge --train` makes its weights again, `--check` measures those that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.word_classifier import (
    Classifier,
    Say,
    every_pair,
    fit,
    load_classifier,
    save_classifier,
    tell_right,
    train_or_check,
)

from .model import WEIGHTS as FOLDER
from .model import Prompt
from .names import CONTENTS, STYLES
from .pictures import SIZE, background_table, compose, named, true_pictures

WEIGHTS = FOLDER / "judge.safetensors"
STEPS, BATCH = 2400, 64


class Judge(Classifier):
    """Pictures (n, 3, 64, 64) to logits of subjects (n, subjects) and styles (n, styles)."""

    def __init__(self) -> None:
        super().__init__(((24, 2), (48, 2), (96, 2), (128, 1), (192, 2)), len(CONTENTS), len(STYLES))


def distance_to_truth(pictures: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """(n,) root mean square of the difference to the real drawing, pictures in [-1, 1]; prompts name all words."""
    words = torch.tensor([[prompt.content, prompt.style, prompt.background] for prompt in prompts])
    return (pictures - true_pictures(*words.unbind(1))).square().mean((1, 2, 3)).sqrt()


def renders(contents: Tensor, styles: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, SIZE, SIZE): drawings moved by up to 5 pixels, scaled by 0.85 to 1.12, on named and on random colours."""
    count = len(contents)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (count,)), generator=generator)

    zoom, shift = 1 / draw(0.85, 1.12), draw(-10 / SIZE, 10 / SIZE, count, 2)
    zero = torch.zeros_like(zoom)
    rows = torch.stack([torch.stack([zoom, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(rows, [count, 1, SIZE, SIZE], align_corners=False)
    rgba = named()[contents, styles].float() / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    moved = F.grid_sample(rgba, grid, padding_mode="border", align_corners=False)
    moved = torch.cat([moved[:, :3] / moved[:, 3:].clamp(min=1e-3), moved[:, 3:]], 1).clamp(0, 1)
    table = background_table()
    ground = table[torch.randint(len(table), (count,), generator=generator)]
    ground = torch.where(draw(0, 1, count, 1) < 0.7, ground, draw(0, 1, count, 3))
    return compose(moved, ground)


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures (n, 3, h, w) a little blurred, and all a little noisy and off in colour."""
    count = len(pictures)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blur = torch.rand(count, 1, 1, 1, generator=generator).sub(0.5).clamp(min=0).mul(2)
    noise = torch.randn(pictures.shape, generator=generator) * 0.12 * torch.rand(count, 1, 1, 1, generator=generator)
    gain = 0.85 + 0.3 * torch.rand(count, 3, 1, 1, generator=generator)
    return (torch.lerp(pictures, soft, blur) * gain + noise).clamp(-1, 1)


def load_judge(path: Path = WEIGHTS) -> Judge:
    """The trained judge; see `load_classifier`."""
    return load_classifier(Judge(), path, (CONTENTS, STYLES), "benchmarks.art_world.judge")


def save_judge(judge: Judge, path: Path = WEIGHTS) -> None:
    save_classifier(judge, path, (CONTENTS, STYLES))


def train(steps: int, seed: int, say: Say) -> Judge:
    """A judge trained on renders; every picture is new."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        contents, styles = (torch.randint(len(table), (BATCH,), generator=generator) for table in (CONTENTS, STYLES))
        return worn(renders(contents, styles, generator), generator), contents, styles

    return fit(Judge(), batch, steps, say, (CONTENTS, STYLES), bf16=True)


def check(judge: Judge, say: Say, seed: int = 10**6, each: int = 2) -> None:
    """Says how well the judge reads renders that it never saw, all pairs so often, by split and at worst."""
    generator = torch.Generator().manual_seed(seed)
    truth = every_pair((CONTENTS, STYLES), each)
    pictures = torch.cat([renders(c, s, generator) for c, s in zip(*(part.split(256) for part in truth), strict=True)])
    for title, shown in (("renders", pictures), ("worn renders", worn(pictures, generator))):
        tell_right(judge, title, shown, truth, (CONTENTS, STYLES), say)


if __name__ == "__main__":
    train_or_check(
        __doc__,
        WEIGHTS,
        STEPS,
        lambda steps, seed, say: save_judge(train(steps, seed, say)),
        lambda say: check(load_judge(), say),
    )
