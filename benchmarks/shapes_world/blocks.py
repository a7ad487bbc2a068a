"""Which blocks carry content and which style: each concept LoRA in some blocks alone, or everywhere but there.

    python -m benchmarks.shapes_world.blocks

The world's counterpart of Fig. 3 of arXiv 2504.13206, on the development concepts. Prints, for content and for style
LoRAs, the accuracy of the concept's word with every known entry of the other kind.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.word_concepts import Kind
from benchmarks.workers import side_by_side
from duolora_core.lora.folded import FoldedLora

from .calibration import accuracies
from .concepts import load_concept, novel_concepts
from .model import Prompt
from .names import CONTENTS, STYLES, labels
from .workbench import open_workbench

GROUPS = {
    "down_blocks.1": "shallow, down",
    "down_blocks.2": "deep, down",
    "mid_block": "deep, middle",
    "up_blocks.0": "deep, up",
    "up_blocks.1": "shallow, up",
    "down_blocks.2 mid_block up_blocks.0": "deep, all",
    "down_blocks.1 up_blocks.1": "shallow, all",
}
PICTURES = 28


def probe(concept: tuple[Kind, int]) -> dict[str, tuple[float, float]]:
    """{group: (accuracy with the LoRA there alone, accuracy with the LoRA everywhere else)}."""
    kind, label = concept
    bench = open_workbench()
    lora = load_concept(bench.model, kind, label)
    others = labels(STYLES if kind == "content" else CONTENTS, "known")
    prompts = [Prompt(label, other) if kind == "content" else Prompt(other, label) for other in others]
    layers = bench.denoiser.layout.layers

    def kept(part: FoldedLora) -> float:
        return accuracies(bench, part, prompts, PICTURES)[0 if kind == "content" else 1]

    found = {"everywhere": (kept(lora), 0.0)}
    for group in GROUPS:
        inside = {name for name in lora.layers if layers[name].block.diffusers.startswith(tuple(group.split()))}
        alone = replace(lora, layers={name: part for name, part in lora.layers.items() if name in inside})
        without = replace(lora, layers={name: part for name, part in lora.layers.items() if name not in inside})
        found[group] = kept(alone), kept(without)
    return found


def main() -> None:
    found = list(side_by_side(probe, novel_concepts("dev")))
    for role in ("content", "style"):
        rows = [row for (kind, _), row in found if kind == role]
        for group in rows[0]:
            only, without = (sum(row[group][i] for row in rows) / len(rows) for i in (0, 1))
            line = {"lora": role, "blocks": GROUPS.get(group, group), "only there": round(only, 3)}
            if group in GROUPS:
                line["without"] = round(without, 3)
            sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
