"""The oracle: which content and which style a picture shows, or "other" when it shows none.

It has seen every content and every style, the novel ones too, and has no part in any training but its own.
`python -m benchmarks.shapes_world.oracle --train` makes its weights again, `--check` measures those that are there.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .names import CONTENTS, SPLITS, STYLES, Entry, labels
from .odd import ODD, OTHER_CONTENT, OTHER_STYLE, UNSURE, Draw, Labelled, intact, worn
from .render import render

WEIGHTS = Path(__file__).parent / "weights" / "oracle.safetensors"
LOG = WEIGHTS.with_suffix(".log")
STEPS = 2600
BATCH = 64  # pictures as they should be; as many odd ones come on top

SURE = 0.9
"""How sure the oracle must be that a picture shows none of its names. It learned on as many odd pictures as named ones,
most of them near misses, so that at even odds it calls a shape with a dent or a blurred texture none at all."""


class Oracle(nn.Module):
    """Pictures (n, 3, 32, 32) to logits of contents (n, contents + 1) and styles (n, styles + 1); the last is other."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(3, 24, 2),  # 16 x 16
            *_block(24, 40, 1),
            *_block(40, 56, 2),  # 8 x 8
            *_block(56, 56, 1),
            *_block(56, 64, 2),  # 4 x 4
        )
        self.content = nn.Linear(128, OTHER_CONTENT + 1)
        self.style = nn.Linear(128, OTHER_STYLE + 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen: Tensor = self.body(pictures)
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)  # (n, 128)
        return self.content(pooled), self.style(pooled)

    @torch.no_grad()
    def judge(self, pictures: Tensor, batch: int = 512) -> tuple[Tensor, Tensor]:
        """Content labels and style labels of pictures (n, 3, 32, 32), each (n,)."""
        answers = [self(part) for part in pictures.split(batch)]
        return torch.cat([_label(c) for c, _ in answers]), torch.cat([_label(s) for _, s in answers])


def _label(logits: Tensor) -> Tensor:
    """(n, entries + 1) → (n,): the likeliest entry, or other where the oracle is sure of that."""
    other = logits.shape[1] - 1
    return torch.where(logits.softmax(1)[:, other] >= SURE, other, logits[:, :other].argmax(1))


def _block(wide_in: int, wide_out: int, stride: int) -> list[nn.Module]:
    size = 4 if stride == 2 else 3
    conv = nn.Conv2d(wide_in, wide_out, size, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(wide_out), nn.ReLU()]


def load_oracle(path: Path = WEIGHTS) -> Oracle:
    """The trained oracle, in float32 and ready to judge.

    Raises:
        FileNotFoundError: there are no weights; says how to make them.
        ValueError: the weights were made for other contents or styles.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.shapes_world.oracle --train")
    with safe_open(path, "pt") as file:
        if file.metadata() != _names():
            raise ValueError(f"{path} knows other names: train it again with `--train`")
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    oracle = Oracle()
    oracle.load_state_dict(state, strict=False)
    return oracle.eval()


def save_oracle(oracle: Oracle, path: Path = WEIGHTS) -> None:
    """Writes the weights in float16, with the names that they were made for."""
    state = {k: v.half().contiguous() for k, v in oracle.state_dict().items() if v.is_floating_point()}
    save_file(state, path, _names())


def _names() -> dict[str, str]:
    return {k: " ".join(e.looks for e in table) for k, table in (("contents", CONTENTS), ("styles", STYLES))}


def train(steps: int, seed: int, say: Callable[[str], None]) -> Oracle:
    """An oracle trained on renders and odd pictures; every picture is new."""
    torch.manual_seed(seed)
    draw = Draw(torch.Generator().manual_seed(seed))
    oracle = Oracle()
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    start, running = time.perf_counter(), math.log(len(CONTENTS)) + math.log(len(STYLES))
    for step in range(1, steps + 1):
        batch = _batch(draw)
        contents, styles = oracle(batch.pictures)
        loss = F.cross_entropy(contents, batch.contents) + F.cross_entropy(styles, batch.styles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running += 0.02 * (loss.item() - running)
        if step % 250 == 0:
            say(f"step {step}  loss {running:.4f}  {time.perf_counter() - start:.0f} s")
    return oracle.eval()


def _batch(draw: Draw) -> Labelled:
    """Pictures as they should be, and some of every odd kind, the harder ones more; nearly all are a little worn."""
    hard = {"two_contents": 8, "two_styles": 6, "cut": 6, "new_shape": 12, "new_style": 14}
    parts = [intact(BATCH, draw), *(make(hard.get(kind, 3), draw) for kind, make in ODD.items())]
    pictures = torch.cat([part.pictures for part in parts])
    pictures = torch.where(draw.uniform(0, 1, len(pictures), 1, 1, 1) < 0.8, worn(pictures, draw), pictures)
    return Labelled(pictures, torch.cat([p.contents for p in parts]), torch.cat([p.styles for p in parts]))


def check(oracle: Oracle, say: Callable[[str], None], seed: int = 10**6, each: int = 25) -> None:
    """Says how well the oracle reads renders that it never saw, by split, worn ones, and odd ones by kind."""
    generator = torch.Generator().manual_seed(seed)
    contents = torch.arange(len(CONTENTS)).repeat_interleave(len(STYLES) * each)
    styles = torch.arange(len(STYLES)).repeat(len(CONTENTS) * each)
    pictures = render(contents, styles, generator)
    for title, shown in (("renders", pictures), ("worn renders", worn(pictures, Draw(generator)))):
        content_right, style_right = (a == b for a, b in zip(oracle.judge(shown), (contents, styles), strict=True))
        say(f"{title}: {len(shown)}  content {_percent(content_right)}  style {_percent(style_right)}")
        for split in SPLITS:
            of_content = torch.isin(contents, torch.tensor(labels(CONTENTS, split)))
            of_style = torch.isin(styles, torch.tensor(labels(STYLES, split)))
            say(f"  {split}: content {_percent(content_right[of_content])}  style {_percent(style_right[of_style])}")
        say(f"  weakest: {_weakest(CONTENTS, contents, content_right)}, {_weakest(STYLES, styles, style_right)}")
    for kind, make in ODD.items():
        say(f"odd, {kind}: {_odd_line(oracle, make(1000, Draw(generator)))}")


def _odd_line(oracle: Oracle, odd: Labelled) -> str:
    words: list[str] = []
    answers = zip(("content", "style"), oracle.judge(odd.pictures), (odd.contents, odd.styles), strict=True)
    for (head, answer, truth), other in zip(answers, (OTHER_CONTENT, OTHER_STYLE), strict=True):
        for what, rows in (("other", truth == other), ("kept", (truth != other) & (truth != UNSURE))):
            if rows.any():
                words.append(f"{head} {what} {_percent(answer[rows] == truth[rows])}")
    return "  ".join(words)


def _percent(right: Tensor) -> str:
    return f"{100 * right.float().mean().item():.2f} %"


def _weakest(entries: tuple[Entry, ...], truth: Tensor, right: Tensor) -> str:
    rates = [right[truth == label].float().mean().item() for label in range(len(entries))]
    return f"{entries[rates.index(min(rates))].looks} {100 * min(rates):.2f} %"


def main() -> None:
    """Trains and checks, or only checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--train", action="store_true", help=f"write {WEIGHTS.name} and {LOG.name}")
    mode.add_argument("--check", action="store_true", help="measure the weights that are there")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    if options.train:
        WEIGHTS.parent.mkdir(exist_ok=True)
        save_oracle(train(options.steps, options.seed, say))
    check(load_oracle(), say)
    if options.train:
        LOG.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
