"""The judge: which subject and which style a picture shows, and how far it is from the real drawing.

It has seen every drawing, the novel ones too, moved, scaled and worn, and has no part in any training but its own.
`python -m benchmarks.art_world.judge --train` makes its weights again, `--check` measures those that are there.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .model import WEIGHTS as FOLDER
from .model import Prompt
from .names import CONTENTS, SPLITS, STYLES, labels
from .pictures import SIZE, background_table, compose, named, true_pictures

WEIGHTS = FOLDER / "judge.safetensors"
LOG = WEIGHTS.with_suffix(".log")
STEPS, BATCH = 2400, 64


class Judge(nn.Module):
    """Pictures (n, 3, 64, 64) to logits of subjects (n, subjects) and styles (n, styles)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(3, 24, 2),  # 32 x 32
            *_block(24, 48, 2),  # 16 x 16
            *_block(48, 96, 2),  # 8 x 8
            *_block(96, 128, 1),
            *_block(128, 192, 2),  # 4 x 4
        )
        self.content = nn.Linear(384, len(CONTENTS))
        self.style = nn.Linear(384, len(STYLES))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen: Tensor = self.body(pictures)
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)  # (n, 384)
        return self.content(pooled), self.style(pooled)

    @torch.no_grad()
    def judge(self, pictures: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Labels of subjects and styles of pictures (n, 3, 64, 64), each (n,)."""
        answers = [self(part) for part in pictures.split(batch)]
        return torch.cat([c.argmax(1) for c, _ in answers]), torch.cat([s.argmax(1) for _, s in answers])


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


def _block(wide_in: int, wide_out: int, stride: int) -> list[nn.Module]:
    size = 4 if stride == 2 else 3
    conv = nn.Conv2d(wide_in, wide_out, size, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(wide_out), nn.ReLU()]


def load_judge(path: Path = WEIGHTS) -> Judge:
    """The trained judge, in float32 and ready.

    Raises:
        FileNotFoundError: there are no weights; says how to make them.
        ValueError: the weights were made for other subjects or styles.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.art_world.judge --train")
    with safe_open(path, "pt") as file:
        if file.metadata() != _names():
            raise ValueError(f"{path} knows other names: train it again with `--train`")
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    judge = Judge()
    judge.load_state_dict(state, strict=False)
    return judge.eval()


def save_judge(judge: Judge, path: Path = WEIGHTS) -> None:
    """Writes the weights in float16, with the names that they were made for."""
    state = {k: v.half().contiguous() for k, v in judge.state_dict().items() if v.is_floating_point()}
    save_file(state, path, _names())


def _names() -> dict[str, str]:
    return {k: " ".join(e.looks for e in table) for k, table in (("contents", CONTENTS), ("styles", STYLES))}


def train(steps: int, seed: int, say: Callable[[str], None]) -> Judge:
    """A judge trained on renders; every picture is new."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    start, running = time.perf_counter(), math.log(len(CONTENTS)) + math.log(len(STYLES))
    for step in range(1, steps + 1):
        contents, styles = (torch.randint(len(table), (BATCH,), generator=generator) for table in (CONTENTS, STYLES))
        pictures = worn(renders(contents, styles, generator), generator)
        with torch.autocast("cpu", torch.bfloat16):
            content_logits, style_logits = judge(pictures)
        loss = F.cross_entropy(content_logits.float(), contents) + F.cross_entropy(style_logits.float(), styles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running += 0.02 * (loss.item() - running)
        if step % 200 == 0:
            say(f"step {step}  loss {running:.4f}  {time.perf_counter() - start:.0f} s")
    return judge.eval()


def check(judge: Judge, say: Callable[[str], None], seed: int = 10**6, each: int = 2) -> None:
    """Says how well the judge reads renders that it never saw, all pairs so often, by split and at worst."""
    generator = torch.Generator().manual_seed(seed)
    contents = torch.arange(len(CONTENTS)).repeat_interleave(len(STYLES) * each)
    styles = torch.arange(len(STYLES)).repeat(len(CONTENTS) * each)
    pictures = torch.cat(
        [renders(c, s, generator) for c, s in zip(contents.split(256), styles.split(256), strict=True)]
    )
    for title, shown in (("renders", pictures), ("worn renders", worn(pictures, generator))):
        content_right, style_right = (a == b for a, b in zip(judge.judge(shown), (contents, styles), strict=True))
        say(f"{title}: {len(shown)}  subject {_percent(content_right)}  style {_percent(style_right)}")
        for split in SPLITS:
            of_content = torch.isin(contents, torch.tensor(labels(CONTENTS, split)))
            of_style = torch.isin(styles, torch.tensor(labels(STYLES, split)))
            say(f"  {split}: subject {_percent(content_right[of_content])}  style {_percent(style_right[of_style])}")
        for table, truth, right in ((CONTENTS, contents, content_right), (STYLES, styles, style_right)):
            rates = [right[truth == label].float().mean().item() for label in range(len(table))]
            say(f"  weakest: {table[rates.index(min(rates))].looks} {100 * min(rates):.2f} %")


def _percent(right: Tensor) -> str:
    return f"{100 * right.float().mean().item():.2f} %"


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
        save_judge(train(options.steps, options.seed, say))
    check(load_judge(), say)
    if options.train:
        LOG.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
