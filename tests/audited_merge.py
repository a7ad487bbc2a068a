"""A whole merge under watch, for a process of its own: from two files to a merged file, masks, report and back.

PYTHONPATH=.:tests python -m audited_merge FOLDER    # prints what it did to the outside, as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from audit_hook import Watch
from duolora_core import (
    MergeConfig,
    attach,
    kohya_state_dict,
    layer_roles,
    make_merged,
    make_pair,
    match_to_model,
    read_lora,
    starting_gates,
    train,
)
from duolora_core.baselines.core_space import ties
from duolora_core.files.safe_path import safe_path
from duolora_core.lora.metadata import FileInfo, metadata, trigger_words
from duolora_core.lora.save import write_safetensors
from duolora_core.merge.masks_file import gates_of, read_masks, save_masks
from duolora_core.merge.statistics import block_statistics
from duolora_core.report import MergeFigures, findings, merge_report
from factors import random_factors, shapes_of
from spellings import spell
from tiny import TinyDenoiser, layout, picture, tiny_unet
from training import LAYERS


def main(folder: Path) -> None:
    sources: list[Path] = []
    for seed, name in enumerate(("content", "style")):
        sources.append(folder / f"{name}.safetensors")
        save_file(spell(random_factors(shapes_of(LAYERS), 3, seed)), sources[-1], {"modelspec.trigger_phrase": name})
    denoiser, loras = TinyDenoiser(tiny_unet(torch.float32)), folder / "loras"
    set_up_pytorch()
    watch = Watch([loras])
    with watch.on() as found:
        merge(sources, denoiser, loras)
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").glob("*") if path.is_symlink()]
    sockets = [each for each in opened if each.startswith("socket:")]
    written = sorted(path.name for path in loras.rglob("*") if path.is_file())
    sys.stdout.write("\n" + json.dumps({"found": found, "sockets": sockets, "written": written}) + "\n")


def set_up_pytorch() -> None:
    """At its first step of any optimiser, PyTorch imports its compiler, which makes folders of its own."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter]).step()


def merge(sources: list[Path], denoiser: TinyDenoiser, loras: Path) -> None:
    """All that the nodes do with the engine."""
    config = MergeConfig(steps=2, layer_prior_weight=1.0, cycle_weight=0.01)
    files = [read_lora(path) for path in sources]
    content, style = (match_to_model(file, layout()) for file in files)
    pair = make_pair(content, style, layout(), config.basis)
    roles = layer_roles(layout(), config.layer_prior)
    gates = starting_gates(pair, roles, config)
    losses: list[float] = []
    with attach(denoiser.modules, pair, gates) as gated:
        for report in train(denoiser, gated, [picture(1)], [picture(2)], roles, config):
            losses.append(report.losses["total"])
    recipe = {"prompt": trigger_words(files[0].metadata), "steps": config.steps}
    folded = make_merged(pair, gates, recipe).fold()
    folder, stem = safe_path(loras, "duolora/merged")
    values = metadata(folded, FileInfo(stem), recipe)
    write_safetensors(folder / f"{stem}_00001.safetensors", kohya_state_dict(folded), values)
    masks = save_masks(folder / f"{stem}_00001.masks.safetensors", gates, pair, recipe)
    assert torch.equal(gates_of(read_masks(masks), pair).values, gates.values)
    match_to_model(read_lora(folder / f"{stem}_00001.safetensors"), layout())
    blocks = block_statistics(gates, pair, roles)
    told = findings({"total": losses}, blocks, ())
    merge_report(MergeFigures("merge", losses={"total": losses}, blocks=blocks, findings=told))
    ties(pair)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
