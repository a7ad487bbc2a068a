"""One merge from start to end, on a small world that ships with the repository: no checkpoint, no GPU, no download.

    python -m benchmarks.shapes_world.demo --out output/demo

Merges a content LoRA and a style LoRA with the engine that the nodes use, writes the merged LoRA as an ordinary file,
and paints the combined prompt with every method, so that one look tells what each of them kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from duolora_core import MergeConfig, StepReport, kohya_state_dict, make_merged
from duolora_core.baselines.training_free import stack
from duolora_core.baselines.zip_lora import ZipLoraConfig
from duolora_core.lora.folded import FoldedLora
from duolora_core.lora.save import write_safetensors
from duolora_core.report import picture_grid

from .cases import case_of
from .concepts import load_concept
from .judging import judge
from .names import CONTENTS, STYLES
from .render import as_image
from .trials import SEED, paint_with
from .workbench import open_workbench

PICTURES, SHOWN = 32, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="sks2+zwx2", help="content and style")
    parser.add_argument("--steps", type=int, default=MergeConfig().steps)
    parser.add_argument("--out", type=Path, default=Path("output/demo"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)  # so small a network is slower with two, by far where something else runs as well
    case, bench, config = case_of(wanted.case), open_workbench(), MergeConfig(steps=wanted.steps)
    content, style = CONTENTS[case.content], STYLES[case.style]
    _say(f"Content LoRA {content.name} ({content.looks}) and style LoRA {style.name} ({style.looks})")

    started = time.perf_counter()
    pair, gates = bench.duolora(case, config, watch=lambda report: _progress(report, time.perf_counter() - started))
    merged = make_merged(pair, gates).fold()
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"{content.name}_{style.name}.safetensors"
    file.unlink(missing_ok=True)
    write_safetensors(file, kohya_state_dict(merged), {"ss_base_model_version": "shapes_world"})

    _say("Painting the combined prompt with each method ...")
    loras: dict[str, FoldedLora] = {
        "content LoRA": load_concept(bench.model, "content", case.content),
        "style LoRA": load_concept(bench.model, "style", case.style),
        "stacked": stack(pair),
        "ZipLoRA": bench.zip_lora(case, ZipLoraConfig(steps=wanted.steps), "output").fold(),
        "DuoLoRA": merged,
    }
    rows: list[list[Image.Image]] = []
    names: list[str] = []
    for name, lora in loras.items():
        prompts = [case.prompt] * PICTURES
        painted = paint_with(bench.model, lora, prompts, SEED)
        verdict = judge(painted, prompts, bench.oracle)
        _say(f"  {name:13} content {verdict.content:.2f}   style {verdict.style:.2f}   both {verdict.both:.2f}")
        rows.append([as_image(picture) for picture in painted[:SHOWN]])
        names.append(f"{name}  {verdict.content:.2f} / {verdict.style:.2f}")
    sheet = wanted.out / "contact_sheet.png"
    note = f"content / style accuracy over {PICTURES} pictures of '{content.name} {style.name}'"
    picture_grid(rows, names, [""] * SHOWN, note=note).save(sheet)
    _say(f"Merged LoRA:   {file}\nContact sheet: {sheet}")


def _progress(report: StepReport, seconds: float) -> None:
    step, steps = report.step, report.steps
    done = round(30 * step / steps)
    left = seconds / step * (steps - step)
    sys.stdout.write(f"\rTraining masks [{'#' * done}{'.' * (30 - done)}] {step}/{steps}, {left:.0f} s left ")
    sys.stdout.write("\n" if step == steps else "")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
