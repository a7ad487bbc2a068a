"""One merge at SDXL's full width on the CPU: 2.6 B random weights in bf16, two rank-64 LoRAs on all attention linears.

    python -m benchmarks.full_width --pixels 256 --steps 3

Prints one JSON line: peak memory of the process in GB, seconds per step, seconds for the SVD basis and for folding.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import torch

from benchmarks.ldm_unet import SDXL
from benchmarks.random_sdxl import UNetDenoiser, checkpointed, random_pair, random_pictures, random_unet
from duolora_core import MergeConfig, attach, kohya_state_dict, layer_roles, make_merged, starting_gates, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rank", type=int, default=64)
    wanted = parser.parse_args()

    denoiser = UNetDenoiser(random_unet(SDXL, torch.bfloat16))
    with_weights = _peak_gb()
    started = time.perf_counter()
    pair = random_pair(denoiser.layout, wanted.rank)
    basis_seconds = time.perf_counter() - started
    config = MergeConfig(steps=wanted.steps, micro_batch=4)
    roles = layer_roles(denoiser.layout, config.layer_prior)
    gates = starting_gates(pair, roles, config)
    pictures = random_pictures(wanted.pixels)
    with checkpointed(denoiser.unet), attach(denoiser.modules, pair, gates) as gated:
        reports = list(train(denoiser, gated, *pictures, roles, config))
    started = time.perf_counter()
    tensors = kohya_state_dict(make_merged(pair, gates).fold())
    result = {
        "parameters": sum(p.numel() for p in denoiser.unet.parameters()),
        "gates": len(gates.values),
        "peak_gb": round(_peak_gb(), 2),
        "peak_gb_weights_alone": round(with_weights, 2),
        "step_seconds": [round(report.seconds, 1) for report in reports],
        "losses": [round(report.losses["total"], 4) for report in reports],
        "basis_seconds": round(basis_seconds, 1),
        "fold_seconds": round(time.perf_counter() - started, 1),
        "file_mb": round(sum(tensor.nbytes for tensor in tensors.values()) / 1e6),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
