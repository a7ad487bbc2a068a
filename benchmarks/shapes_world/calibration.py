"""Is the world worth measuring on: does the base know its words, and does each LoRA alone do its job, gently?

    python -m benchmarks.shapes_world.calibration --splits dev

Prints one JSON line for the base model and for each concept: the oracle's accuracy on the concept's own prompts and
with every known entry of the other kind, and how large the LoRA is beside the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.word_concepts import Kind
from benchmarks.workers import side_by_side
from duolora_core.lora.folded import FoldedLora

from .applied import applied, relative_norm
from .concepts import concept_pictures, load_concept, novel_concepts
from .judging import judge, paint
from .model import Prompt
from .names import CONTENTS, SPLITS, STYLES, labels
from .workbench import Workbench, open_workbench


@dataclass(frozen=True)
class Alone:
    """A LoRA by itself.

    Attributes:
        own: accuracy of its word on the prompts it was trained on
        elsewhere: the same with all known entries of the other kind
        obeyed: there, accuracy of the other word: how far the LoRA leaves that to the prompt
        relative_norm: median over layers of ‖ΔW‖₂ / ‖W‖₂
    """

    own: float
    elsewhere: float
    obeyed: float
    relative_norm: float


def alone(concept: tuple[Kind, int], pictures: int = 56) -> Alone:
    """Measures one committed concept LoRA on so many pictures of each sort."""
    kind, label = concept
    bench = open_workbench()
    lora = load_concept(bench.model, kind, label)
    others = labels(STYLES if kind == "content" else CONTENTS, "known")
    known = [Prompt(label, other) if kind == "content" else Prompt(other, label) for other in others]
    own = accuracies(bench, lora, concept_pictures(kind, label).prompts, pictures)
    elsewhere = accuracies(bench, lora, known, pictures)
    mine, other = (0, 1) if kind == "content" else (1, 0)
    return Alone(own[mine], elsewhere[mine], elsewhere[other], relative_norm(bench.model, lora))


def base_accuracies(bench: Workbench, pictures: int = 196) -> tuple[float, float]:
    """(content, style) accuracy of the base model on its own words, every pair of them once."""
    nothing = FoldedLora({}, {}, {}, {}, 0.0)
    prompts = [Prompt(c, s) for c in labels(CONTENTS, "known") for s in labels(STYLES, "known")]
    return accuracies(bench, nothing, prompts, pictures)


def accuracies(bench: Workbench, lora: FoldedLora, prompts: Sequence[Prompt], pictures: int) -> tuple[float, float]:
    """(content, style) accuracy of a LoRA on prompts, taken in turn."""
    asked = [prompts[i % len(prompts)] for i in range(pictures)]
    with applied(bench.model, lora) as model:
        verdict = judge(paint(model, asked, seed=7), asked, bench.oracle)
    return verdict.content, verdict.style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", nargs="+", choices=SPLITS[1:], default=SPLITS[1:])
    parser.add_argument("--base-only", action="store_true")
    wanted = parser.parse_args()
    content, style = base_accuracies(open_workbench())
    _say({"base": {"content": content, "style": style}})
    if wanted.base_only:
        return
    found = list(side_by_side(alone, novel_concepts(*wanted.splits)))
    for (kind, label), each in sorted(found, key=lambda row: row[0]):
        name = (CONTENTS if kind == "content" else STYLES)[label]
        _say({kind: name.name, "looks": name.looks} | vars(each))
    for role in ("content", "style"):
        rows = [vars(each) for (kind, _), each in found if kind == role]
        _say({f"mean {role}": {key: float(torch.tensor([row[key] for row in rows]).mean()) for key in rows[0]}})


def _say(row: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(row, default=lambda value: round(value, 3)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
