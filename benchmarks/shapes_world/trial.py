"""One development pair from start to end: each LoRA alone, both stacked, and merged by DuoLoRA.

    python -m benchmarks.shapes_world.trial --content sks1 --style zwx1

Prints one JSON line per case: what the oracle saw on the case's prompts, and how gentle the LoRAs are. Trains the two
concept LoRAs where they are not there yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch

from duolora_core import (
    MergeConfig,
    Picture,
    attach,
    initial_gates,
    kohya_state_dict,
    layer_roles,
    lora_from_tensors,
    make_merged,
    make_pair,
    open_gates,
    place,
    train,
)
from duolora_core.lora_save import write_safetensors
from duolora_core.merged import FoldedLora
from duolora_core.pair import LoraPair

from .applied import applied, relative_norm
from .concepts import Kind, concept_pictures, load_concept, lora_path, train_concept
from .measure import score
from .model import Prompt, ShapesDenoiser, ShapesModel, load_model
from .names import CONTENTS, STYLES, Entry, labels
from .oracle import load_oracle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--content", default="sks1")
    parser.add_argument("--style", default="zwx1")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    wanted = parser.parse_args()
    content, style = _label(CONTENTS, wanted.content), _label(STYLES, wanted.style)
    model, oracle = load_model(), load_oracle()

    alone = {kind: _concept(model, kind, label) for kind, label in _kinds(content, style).items()}
    pair = _pair(model, alone["content"], alone["style"])
    stacked = make_merged(pair, open_gates(pair)).fold()
    started = time.perf_counter()
    merged = duolora(model, pair, content, style, MergeConfig(steps=wanted.steps))
    merge_seconds = time.perf_counter() - started

    known_styles, known_contents = labels(STYLES, "known"), labels(CONTENTS, "known")
    own = {kind: concept_pictures(kind, label).prompts for kind, label in _kinds(content, style).items()}
    combined = [Prompt(content, style)]
    cases: list[tuple[str, FoldedLora | None, list[Prompt]]] = [
        ("base, known prompts", None, [Prompt(c, s) for c, s in zip(known_contents, known_styles, strict=True)]),
        ("content alone, own prompts", alone["content"], own["content"]),
        ("content alone, known styles", alone["content"], [Prompt(content, s) for s in known_styles]),
        ("style alone, own prompts", alone["style"], own["style"]),
        ("style alone, known contents", alone["style"], [Prompt(c, style) for c in known_contents]),
        ("content alone, combined prompt", alone["content"], combined),
        ("style alone, combined prompt", alone["style"], combined),
        ("stacked 1+1, combined prompt", stacked, combined),
        ("DuoLoRA, combined prompt", merged, combined),
    ]
    for name, lora, prompts in cases:
        asked = [prompts[i % len(prompts)] for i in range(wanted.pictures)]
        with applied(model, lora or FoldedLora({}, {}, {}, {}, 0.0)):
            found = score(model, oracle, asked, seed=7)
        _say({"case": name, "content": found.content, "style": found.style, "harmonic": round(found.harmonic, 3)})
    norms = {kind: round(relative_norm(model, lora), 3) for kind, lora in alone.items()}
    _say({"relative_norms": norms, "merge_seconds": round(merge_seconds, 1)})


def duolora(model: ShapesModel, pair: LoraPair, content: int, style: int, config: MergeConfig) -> FoldedLora:
    """The merge of two concepts by the engine, trained on the concepts' own pictures."""
    denoiser = ShapesDenoiser(model)
    roles = layer_roles(denoiser.layout, config.layer_prior)
    generator = torch.Generator().manual_seed(config.seed)
    thresholds = config.content_threshold, config.style_threshold
    gates = initial_gates(pair, roles, config.initialisation, *thresholds, generator)
    both = Prompt(content, style)
    sides: list[list[Picture]] = []
    for kind, label in _kinds(content, style).items():
        pictures = concept_pictures(kind, label)
        sides.append([Picture(z, own, both) for z, own in zip(pictures.latents, pictures.prompts, strict=True)])
    with attach(denoiser.modules, pair, gates) as gated:
        for _ in train(denoiser, gated, sides[0], sides[1], roles, config):
            pass
    return make_merged(pair, gates).fold()


def _kinds(content: int, style: int) -> dict[Kind, int]:
    return {"content": content, "style": style}


def _concept(model: ShapesModel, kind: Kind, label: int) -> FoldedLora:
    path = lora_path(kind, label)
    if not path.exists():
        write_safetensors(path, kohya_state_dict(train_concept(model, kind, label)), {})
    return load_concept(model, kind, label)


def _pair(model: ShapesModel, content: FoldedLora, style: FoldedLora) -> LoraPair:
    concepts = [
        place(lora_from_tensors(kohya_state_dict(lora, torch.float32), name), model.layout)
        for name, lora in (("content", content), ("style", style))
    ]
    return make_pair(concepts[0], concepts[1], model.layout)


def _label(table: tuple[Entry, ...], name: str) -> int:
    return [entry.name for entry in table].index(name)


def _say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
