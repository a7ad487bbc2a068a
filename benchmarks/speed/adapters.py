"""How long a whole-file adapter of SDXL's size takes to become a plain LoRA on the CPU.

    python -m benchmarks.speed.adapters [DoRA OFT LoHa LoKr] [--threads 2] [--share 1.0]

Every linear layer and convolution of SDXL's UNet is changed. Weights are random: the time does not depend on them.
`--share` measures every n-th layer alone, and says what all of them would take. Seconds of the processor are those of
all threads together; on a machine with nothing else to do the wall takes them divided by the threads.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.ldm_unet import SDXL, UNet, layer_shapes
from duolora_core import LoraFile, layout_from_shapes, match_to_model
from duolora_core.lora.adapters import Adapter, Dora, Loha, Lokr, Oft, PlainLora

RANK = 16


def dora(out: int, inputs: int) -> Adapter:
    lora = PlainLora(torch.randn(out, RANK) / 50, torch.randn(RANK, inputs) / 50, None, float(RANK))
    return Dora(lora, torch.rand(out) + 0.5, False)


def oft(out: int, inputs: int) -> Adapter:
    size = math.gcd(out, 32)
    return Oft(torch.randn(out // size, size, size) / 100, 0.0)


def loha(out: int, inputs: int) -> Adapter:
    one, two, three, four = (torch.randn(shape) for shape in ((out, RANK), (RANK, inputs)) * 2)
    return Loha(one, two, three, four, None, None, 1.0)


def lokr(out: int, inputs: int) -> Adapter:
    p, m = math.gcd(out, 16), math.gcd(inputs, 16)
    return Lokr(torch.randn(p, m), None, None, torch.randn(out // p, inputs // m), None, None, None, None)


KINDS: dict[str, Callable[[int, int], Adapter]] = {"DoRA": dora, "OFT": oft, "LoHa": loha, "LoKr": lokr}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with torch.device("meta"):
        layout = layout_from_shapes(layer_shapes(UNet(SDXL)))
    shapes = {name: layer.shape for name, layer in layout.layers.items() if len(layer.shape) > 1}
    chosen = dict(list(shapes.items())[:: round(1 / wanted.share)])
    pool = torch.randn(max(math.prod(shape) for shape in shapes.values())) / 30

    def weight(name: str) -> Tensor | None:
        shape = shapes.get(name)
        return None if shape is None else pool[: math.prod(shape)].reshape(shape)

    for kind in wanted.kinds:
        entries = {
            f"lora_unet_{name.replace('.', '_')}": KINDS[kind](shape[0], math.prod(shape[1:]))
            for name, shape in chosen.items()
        }
        started, busy = time.perf_counter(), time.process_time()
        placed = match_to_model(LoraFile(kind, "", entries), layout, weight=weight)
        took, busy = time.perf_counter() - started, time.process_time() - busy
        times = sum(map(math.prod, shapes.values())) / sum(math.prod(shapes[name]) for name in chosen)
        mean_rank = sum(each.rank for each in placed.layers.values()) / len(placed.layers)
        sys.stdout.write(
            f"{kind}: {len(chosen)} of {len(shapes)} layers in {took:.1f} s on {wanted.threads} threads, all in "
            f"{times * took:.0f} s ({times * busy:.0f} s of the processor); mean rank {mean_rank:.0f}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
