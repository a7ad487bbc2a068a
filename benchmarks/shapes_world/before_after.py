"""The picture at the top of the README: one pair of LoRAs stacked and merged, from the same noise.

    python -m benchmarks.shapes_world.before_after --out docs/pictures/before_after.png

The pair is one of the development pairs on which stacking goes wrong where one can see it; what all of the held-out
pairs gain is in docs/quality.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from duolora_core import MergeConfig, make_merged
from duolora_core.baselines.training_free import stack
from duolora_core.report import picture_grid

from .cases import case_of
from .concepts import load_concept
from .judging import judge
from .model import Prompt
from .names import CONTENTS, STYLES
from .render import as_image
from .trials import SEED, paint_with
from .workbench import open_workbench

CASE = "sks1+zwx3"
PICTURES, SHOWN = 64, 6
CELL = 128
BESIDE = 0  # the label of the known content or style that stands beside a novel one where a LoRA paints alone


def make_picture(path: Path) -> None:
    """Train the merge, paint and judge each way, and save the grid."""
    case, bench = case_of(CASE), open_workbench()
    pair, gates = bench.duolora(case, MergeConfig(), "self-made")
    content, style = CONTENTS[case.content].looks, STYLES[case.style].looks
    ways = {
        f"content LoRA alone: {content}": (
            load_concept(bench.model, "content", case.content),
            Prompt(case.content, BESIDE),
        ),
        f"style LoRA alone: {style}": (load_concept(bench.model, "style", case.style), Prompt(BESIDE, case.style)),
        "both stacked": (stack(pair), case.prompt),
        "both merged by DuoLoRA": (make_merged(pair, gates).fold(), case.prompt),
    }
    rows, names = [], []
    for name, (lora, prompt) in ways.items():
        prompts = [prompt] * PICTURES
        painted = paint_with(bench.model, lora, prompts, SEED)
        verdict = judge(painted, prompts, bench.oracle)
        rows.append([as_image(picture) for picture in painted[:SHOWN]])
        names.append(name if prompt != case.prompt else f"{name}: {verdict.both:.0%} right")
    note = (
        "Shapes world, the small test model of this repository. Same noise down each column; right: an independent "
        f"classifier sees subject and style, {PICTURES} pictures."
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_grid(rows, names, [""] * SHOWN, cell=CELL, note=note).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/before_after.png"))
    torch.set_num_threads(1)
    path: Path = parser.parse_args().out
    make_picture(path)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
