"""Is the world worth measuring on: does the base model paint its words as the judge reads them?

    python -m benchmarks.art_world.calibration --pictures 96 --sheet sheet.png

Prints one JSON line: how often subject, style and both are right in pictures of known subjects in known styles, and the
mean distance to the real drawings beside that of a real drawing of another subject in the same style, which is what
a picture is worth that shows the style alone. The sheet has the painted pictures above the real ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .judge import Judge, distance_to_truth, load_judge
from .model import WEIGHTS, ArtModel, Prompt, load_model
from .names import BACKGROUNDS, CONTENTS, STYLES, labels
from .pictures import sheet, true_pictures
from .sample import paint

COLUMNS = 16


@dataclass(frozen=True)
class Accuracy:
    """Shares of pictures, and root mean square distances of pictures in [-1, 1].

    Attributes:
        other: distance of another subject's real drawing in the same style on the same background
    """

    pictures: int
    content: float
    style: float
    both: float
    distance: float
    other: float


def known_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Known subjects in a random order, known styles and backgrounds in turn."""
    generator = torch.Generator().manual_seed(seed)
    contents, styles = labels(CONTENTS, "known"), labels(STYLES, "known")
    order = torch.randperm(len(contents), generator=generator).tolist()
    return [
        Prompt(contents[order[i % len(order)]], styles[i % len(styles)], i % len(BACKGROUNDS)) for i in range(count)
    ]


def truths(prompts: list[Prompt]) -> Tensor:
    """(n, 3, 64, 64), the real drawings."""
    return true_pictures(*torch.tensor([[p.content, p.style, p.background] for p in prompts]).unbind(1))


def accuracy(pictures: Tensor, prompts: list[Prompt], judge: Judge) -> Accuracy:
    """What the judge says of pictures (n, 3, 64, 64) of prompts that name all three words."""
    contents, styles = judge.judge(pictures)
    content = contents == torch.tensor([prompt.content for prompt in prompts])
    style = styles == torch.tensor([prompt.style for prompt in prompts])
    elsewhere = [
        Prompt(prompts[(i + len(STYLES)) % len(prompts)].content, p.style, p.background) for i, p in enumerate(prompts)
    ]
    return Accuracy(
        len(prompts),
        _mean(content),
        _mean(style),
        _mean(content & style),
        _mean(distance_to_truth(pictures, prompts)),
        _mean(distance_to_truth(truths(elsewhere), prompts)),
    )


def base_pictures(model: ArtModel, prompts: list[Prompt], seed: int = 7, steps: int = 20, cfg: float = 3.0) -> Tensor:
    """(n, 3, 64, 64) as the base model paints them."""
    return paint(model, prompts, seed, steps, cfg)


def _mean(values: Tensor) -> float:
    return round(float(values.float().mean()), 4)


def main() -> None:
    """Paints, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS / "base.safetensors")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet there")
    wanted = parser.parse_args()
    prompts = known_prompts(wanted.pictures)
    pictures = base_pictures(load_model(wanted.weights), prompts, steps=wanted.steps, cfg=wanted.cfg)
    if wanted.sheet:
        rows = zip(pictures.split(COLUMNS), truths(prompts).split(COLUMNS), strict=True)
        sheet(torch.cat([part for row in rows for part in row]), COLUMNS).save(wanted.sheet)
    sys.stdout.write(json.dumps(asdict(accuracy(pictures, prompts, load_judge()))) + "\n")


if __name__ == "__main__":
    main()
