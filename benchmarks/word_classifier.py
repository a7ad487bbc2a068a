"""A judge of pictures: which content and which style they show. It has no part in any training but its own."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.words import SPLITS, Entry, labels

Say = Callable[[str], None]
Tables = tuple[tuple[Entry, ...], tuple[Entry, ...]]
"""Contents and styles."""


class Classifier(nn.Module):
    """Pictures (n, 3, h, w) to logits of contents (n, contents) and styles (n, styles).

    Args:
        blocks: (width, stride) of each convolution
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], contents: int, styles: int) -> None:
        super().__init__()
        widths = [3, *(width for width, _ in blocks)]
        layers: list[nn.Module] = []
        for wide_in, (wide_out, stride) in zip(widths, blocks, strict=False):
            conv = nn.Conv2d(wide_in, wide_out, 4 if stride == 2 else 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(wide_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.content = nn.Linear(2 * widths[-1], contents)
        self.style = nn.Linear(2 * widths[-1], styles)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen: Tensor = self.body(pictures)
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
        return self.content(pooled), self.style(pooled)

    def label(self, logits: Tensor) -> Tensor:
        """(n, entries) → (n,): the likeliest entry."""
        return logits.argmax(1)

    @torch.no_grad()
    def judge(self, pictures: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Labels of contents and styles of pictures (n, 3, h, w), each (n,)."""
        answers = [self(part) for part in pictures.split(batch)]
        return torch.cat([self.label(c) for c, _ in answers]), torch.cat([self.label(s) for _, s in answers])


C = TypeVar("C", bound=Classifier)


def load_classifier(classifier: C, path: Path, tables: Tables, maker: str) -> C:
    """With the weights of a file, in float32 and ready to judge.

    Raises:
        FileNotFoundError: there are no weights; says which module makes them.
        ValueError: the weights were made for other contents or styles.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m {maker} --train")
    with safe_open(path, "pt") as file:
        if file.metadata() != _names(tables):
            raise ValueError(f"{path} knows other names: train it again with `--train`")
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    classifier.load_state_dict(state, strict=False)
    return classifier.eval()


def save_classifier(classifier: Classifier, path: Path, tables: Tables) -> None:
    """Writes the weights in float16, with the names that they were made for."""
    state = {k: v.half().contiguous() for k, v in classifier.state_dict().items() if v.is_floating_point()}
    save_file(state, path, _names(tables))


def _names(tables: Tables) -> dict[str, str]:
    return {k: " ".join(e.looks for e in table) for k, table in zip(("contents", "styles"), tables, strict=True)}


def fit(
    classifier: C, batch: Callable[[], tuple[Tensor, Tensor, Tensor]], steps: int, say: Say, tables: Tables, bf16: bool
) -> C:
    """Trained on batches of pictures, contents and styles; every picture is new."""
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    start, running = time.perf_counter(), sum(math.log(len(table)) for table in tables)
    for step in range(1, steps + 1):
        pictures, contents, styles = batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            of_contents, of_styles = classifier(pictures)
        loss = F.cross_entropy(of_contents.float(), contents) + F.cross_entropy(of_styles.float(), styles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running += 0.02 * (loss.item() - running)
        if step % 250 == 0:
            say(f"step {step}  loss {running:.4f}  {time.perf_counter() - start:.0f} s")
    return classifier.eval()


def every_pair(tables: Tables, each: int) -> tuple[Tensor, Tensor]:
    """Contents and styles of all pairs, each so often."""
    contents, styles = (torch.arange(len(table)) for table in tables)
    return contents.repeat_interleave(len(styles) * each), styles.repeat(len(contents) * each)


def tell_right(
    classifier: Classifier, title: str, pictures: Tensor, truth: tuple[Tensor, Tensor], tables: Tables, say: Say
) -> None:
    """Says how many of some pictures are read right, by split, and which entries are read worst."""
    right = [found == true for found, true in zip(classifier.judge(pictures), truth, strict=True)]
    say(f"{title}: {len(pictures)}  content {percent(right[0])}  style {percent(right[1])}")
    for split in SPLITS:
        of_split = [torch.isin(true, torch.tensor(labels(t, split))) for true, t in zip(truth, tables, strict=True)]
        shares = [percent(each[rows]) for each, rows in zip(right, of_split, strict=True)]
        say(f"  {split}: content {shares[0]}  style {shares[1]}")
    for table, true, each in zip(tables, truth, right, strict=True):
        rates = [each[true == label].float().mean().item() for label in range(len(table))]
        say(f"  weakest: {table[rates.index(min(rates))].looks} {100 * min(rates):.2f} %")


def percent(right: Tensor) -> str:
    return f"{100 * right.float().mean().item():.2f} %"


def train_or_check(
    what: str | None,
    weights: Path,
    steps: int,
    train: Callable[[int, int, Say], None],
    check: Callable[[Say], None],
) -> None:
    """A command that trains and checks, or only checks; a training's lines are kept beside the weights."""
    parser = argparse.ArgumentParser(description=what)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--train", action="store_true", help=f"write {weights.name} and its log")
    mode.add_argument("--check", action="store_true", help="measure the weights that are there")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    if wanted.train:
        weights.parent.mkdir(exist_ok=True)
        train(wanted.steps, wanted.seed, say)
    check(say)
    if wanted.train:
        weights.with_suffix(".log").write_text("\n".join(lines) + "\n", encoding="utf-8")
