"""The same merge, made and saved in two processes, is the same file: masks and LoRA, byte for byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from duolora_core import MergeConfig, attach, kohya_state_dict, make_merged, starting_gates, train
from duolora_core.lora.metadata import FileInfo, metadata
from duolora_core.lora.save import write_safetensors
from duolora_core.merge.masks_file import save_masks
from tiny import TinyDenoiser, picture, tiny_unet
from training import ROLES, small_pair

ROOT = Path(__file__).parent.parent.parent
FILES = ("merged.safetensors", "merged.masks.safetensors")


def merge_into(folder: Path) -> None:
    """A short training with all that chance decides: random masks, noise, timesteps, pictures, rounds of a pool."""
    config = MergeConfig(steps=5, pool=2, initialisation="random", cycle_weight=0.1, layer_prior_weight=0.1, seed=8)
    built, denoiser = small_pair(), TinyDenoiser(tiny_unet())
    gates = starting_gates(built.pair, ROLES, config)
    content, style = [picture(1), picture(3)], [picture(2), picture(4)]
    with attach(denoiser.modules, built.pair, gates) as gated:
        list(train(denoiser, gated, content, style, ROLES, config))
    recipe = {"config": {"seed": config.seed}, "prompts": {"b": "x", "a": "y"}}
    merged = make_merged(built.pair, gates, recipe).fold(0.9, 1.1)
    info = FileInfo("merged", "a <V1> dog in <S2> style", merged_from=("dog", "ink"))
    write_safetensors(folder / FILES[0], kohya_state_dict(merged), metadata(merged, info, recipe))
    save_masks(folder / FILES[1], replace(gates), built.pair, recipe)


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES]


def test_two_processes_save_the_same_files(tmp_path: Path) -> None:
    """With another order of hashes each, which is what sets and dictionaries of Rust and Python hang on."""
    script = "import sys; from pathlib import Path; from project.test_same_in_same_out import merge_into as merge\n"
    script += "import torch; torch.set_num_threads(1); merge(Path(sys.argv[1]))"
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], env=environment, check=True)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
