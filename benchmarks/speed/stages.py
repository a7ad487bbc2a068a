"""What it takes to read, place, re-factor, fold and save two rank-64 LoRAs of SDXL, stage by stage, on two threads.

    python -m benchmarks.speed.stages                            # all 560 attention linears
    python -m benchmarks.speed.stages --case linears             # kohya's default: feed-forward and proj layers too

Two random kohya files in fp16 are written first; a fresh process then runs the stages and holds what the nodes hold:
both files, both placed LoRAs, the pair, the folded LoRA and the tensors to write. One line per stage: seconds of the
clock, of all threads together in user mode and in the kernel (mostly first touches of fresh memory), and the peak of
resident memory (VmHWM, reset before each stage) above what the process had before it read the first file, as a multiple
of the size of both files. Mapped pages of the files count. Files come from the page cache, and the new file is synced
to the disk. The memory column needs Linux. The last line is JSON; its total leaves out the last two stages, reading
back and recompression.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.ldm_unet import SDXL, UNet, layer_shapes
from duolora_core import (
    Gates,
    LoraPair,
    MergedLora,
    UNetLayout,
    kohya_state_dict,
    layout_from_shapes,
    make_merged,
    make_pair,
    match_to_model,
    open_gates,
    read_lora,
)
from duolora_core.lora.metadata import FileInfo, metadata
from duolora_core.lora.save import write_safetensors

CASES = {"attention": r"\.attn[12]\.to_", "linears": r"\.attn[12]\.to_|\.ff\.net\.(0\.proj|2)$|\.proj_(in|out)$"}
THREADS = 2
RANK = 64
COUNTED = ("read", "place", "SVD basis", "fold", "encode", "save")

T = TypeVar("T")


def load_fold_save_seconds() -> float:
    """Seconds from two files over all attention linears to the folded, saved LoRA."""
    return measured("attention")["load_fold_save_s"]


def measured(case: str) -> dict[str, Any]:
    """Runs the stages in a fresh process; {"stages": {stage: [seconds, user, kernel, peak]}, "load_fold_save_s", …}."""
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.stages", "--case", case]
        subprocess.run([*command, "--write", folder], env=environment, check=True)
        command += ["--run", folder]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {"case": case, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="attention")
    parser.add_argument("--write", metavar="FOLDER", help=argparse.SUPPRESS)  # the process that makes the files
    parser.add_argument("--run", metavar="FOLDER", help=argparse.SUPPRESS)  # the measured process itself
    wanted = parser.parse_args()
    if wanted.write:
        _write(Path(wanted.write), CASES[wanted.case])
        return
    if wanted.run:
        sys.stdout.write(json.dumps(_run(Path(wanted.run))))
        return
    result = measured(wanted.case)
    for stage, (seconds, user, kernel, peak) in result["stages"].items():
        memory = "" if peak is None else f"{peak:6.2f} x files"
        sys.stdout.write(f"{stage:16} {seconds:6.2f} s  user {user:6.2f} s  kernel {kernel:6.2f} s {memory}\n")
    sys.stdout.write(json.dumps(result) + "\n")


def _run(folder: Path) -> dict[str, Any]:
    """The measured process: the stages in order, each result kept as a node would keep it."""
    torch.set_num_threads(THREADS)
    paths = [folder / f"{role}.safetensors" for role in ("content", "style")]
    layout = _sdxl()
    watch = _Watch(sum(path.stat().st_size for path in paths))

    files = watch("read", lambda: [read_lora(path) for path in paths])
    content, style = watch("place", lambda: [match_to_model(file, layout) for file in files])
    pair = watch("SVD basis", lambda: make_pair(content, style, layout))
    merged = make_merged(pair, _half_trained(pair), {"steps": 100})
    path, left_out = _folded_and_saved(merged, folder, watch)
    watch("read back", lambda: match_to_model(read_lora(path), layout))
    watch("recompress to 64", lambda: merged.fold(max_rank=RANK).error)
    return {
        "layers": len(pair.names),
        "files_mb": round(watch.size / 1e6),
        "saved_mb": round(path.stat().st_size / 1e6),
        "threads": THREADS,
        "left_out": left_out,
        "load_fold_save_s": round(sum(watch.stages[stage][0] for stage in COUNTED), 2),
        "load_fold_save_cpu_s": round(sum(sum(watch.stages[stage][1:3]) for stage in COUNTED), 2),
        "peak_over_files": max(watch.stages[stage][3] or 0 for stage in COUNTED),
        "stages": watch.stages,
    }


def _folded_and_saved(merged: MergedLora, folder: Path, watch: _Watch) -> tuple[Path, float]:
    """The new file, and the share of the merge that was left out as dead; what it took is free again afterwards."""
    folded = watch("fold", merged.fold)
    tensors = watch("encode", lambda: kohya_state_dict(folded))
    values = metadata(folded, FileInfo("merged"), merged.recipe)
    path = watch("save", lambda: write_safetensors(folder / "merged.safetensors", tensors, values))
    return path, folded.error


class _Watch:
    """Runs stages; `stages` is {stage: (seconds, user, kernel, peak above the start / size)}."""

    def __init__(self, size: int):
        self.size = size
        self.stages: dict[str, tuple[float, float, float, float | None]] = {}
        _peak_bytes()
        self.start = _peak_bytes()  # what is resident now, not what importing took for a moment

    def __call__(self, stage: str, run: Callable[[], T]) -> T:
        before, started = os.times(), time.perf_counter()
        result = run()
        seconds, after = time.perf_counter() - started, os.times()
        user, kernel = after.user - before.user, after.system - before.system
        peak = _peak_bytes()
        share = None if peak is None or self.start is None else round((peak - self.start) / self.size, 2)
        self.stages[stage] = (round(seconds, 2), round(user, 2), round(kernel, 2), share)
        return result


def _peak_bytes() -> int | None:
    """Peak resident memory since the last call, which starts a new peak; None where /proc does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to what is resident now, see proc(5)
    return int(found[1]) * 1024 if found else None


def _half_trained(pair: LoraPair) -> Gates:
    """Gates as after training: around 0.6, and in every layer about a tenth of them dead."""
    gates = open_gates(pair)
    values = torch.rand(gates.values.shape, generator=torch.Generator().manual_seed(5))
    gates.values = torch.where(values < 0.1, 0.001, 0.2 + 0.8 * values)
    return gates


def _sdxl() -> UNetLayout:
    with torch.device("meta"):
        return layout_from_shapes(layer_shapes(UNet(SDXL)))


def _write(folder: Path, pattern: str) -> None:
    torch.set_num_threads(1)
    layout = _sdxl()
    for seed, role in enumerate(("content", "style")):
        save_file(_random_kohya(layout, pattern, seed), folder / f"{role}.safetensors")


def _random_kohya(layout: UNetLayout, pattern: str, seed: int) -> dict[str, Tensor]:
    """A gentle random LoRA as kohya's scripts save it: fp16, one alpha per layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, layer in layout.layers.items():
        if re.search(pattern, name):
            key = "lora_unet_" + name.replace(".", "_")
            out, inputs = layer.shape
            down = torch.randn(RANK, inputs, generator=generator) * inputs**-0.5
            up = torch.randn(out, RANK, generator=generator) * 0.3 * out**-0.5
            tensors[f"{key}.lora_down.weight"] = down.half()
            tensors[f"{key}.lora_up.weight"] = up.half()
            tensors[f"{key}.alpha"] = torch.tensor(RANK / 2).half()
    return tensors


if __name__ == "__main__":
    main()
