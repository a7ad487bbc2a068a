"""Runs inside a host's python: what the pack's memory code makes of the host's own classes, printed as JSON.

python memory_inside.py --host PATH --pack PATH
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    sys.path.append(str(wanted.pack))  # for the benchmarks; behind the host, whose `nodes` it would hide
    inside_host.load_pack(wanted.pack)
    found = {
        "estimate_over_measured": {"with": estimate_over_measured(True), "without": estimate_over_measured(False)},
        "precision": precision(),
        "not_whole": not_whole(),
        "quantised": quantised(),
        "out_of_memory": out_of_memory(),
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def of_the_pack(module: str) -> Any:
    return importlib.import_module(f"duolora_pack.{module}")


def estimate_over_measured(checkpointing: bool) -> float:
    """For one student of SDXL at 512 px under rank-64 LoRAs on attention, in the host's UNet and bf16."""
    import comfy.ops
    import torch

    from benchmarks.speed import memory_plan
    from benchmarks.speed.live_memory import LiveMemory

    network = inside_host.unet("SDXL", comfy.ops.disable_weight_init, torch.bfloat16).requires_grad_(False)
    subject = memory_plan.subject()
    plan = memory_plan.Plan(1, checkpointing)
    needs = memory_plan.estimate(subject.work(512), subject.storage, plan)
    gates = memory_plan.open_gates(subject.pair)
    gates.values = gates.values.to("meta").requires_grad_()
    with torch.device("meta"):
        x, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 2048)
        pooled, timesteps = torch.empty(1, 2816), torch.empty(1)

    def attention(_chosen: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **kwargs: Any) -> Any:
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out.transpose(1, 2).flatten(2)

    modules = dict(network.named_modules())
    with (
        of_the_pack("nodes.host.checkpointing").checkpointable(network) as switch,
        memory_plan.attach(modules, subject.pair, gates) as gated,
        LiveMemory() as memory,
        gated.rows(["merge"]),
    ):
        switch.enabled = checkpointing
        options = {"optimized_attention_override": attention}
        x, text, pooled = (each.to(torch.bfloat16) for each in (x, text, pooled))
        y = network(x, timesteps, context=text, y=pooled, transformer_options=options)
        y.float().square().mean().backward()
    return needs.beside_weights / memory.peak


def precision() -> dict[str, list[Any]]:
    """{where: [dtype of a float32 product, whether TF32 is allowed]} with somebody's autocast around everything."""
    import torch

    own_precision = of_the_pack("nodes.host.precision").own_precision
    one, matmul = torch.ones(2, 2), torch.backends.cuda.matmul

    def seen() -> list[Any]:
        return [str((one @ one).dtype).removeprefix("torch."), matmul.allow_tf32]

    found: dict[str, list[Any]] = {}
    with torch.autocast("cpu", torch.bfloat16):
        for name, size in (("fp32", 4), ("fp16", 2)):
            with own_precision(torch.device("cpu"), size):
                found[name] = seen()
        found["after"] = seen()
    return found


def not_whole() -> str:
    """What is said of a model that stayed in main memory."""
    import torch

    memory, errors = of_the_pack("nodes.host.memory"), of_the_pack("duolora_core.errors")
    try:
        memory.require_whole(torch.nn.Linear(2, 2), torch.device("meta"))
    except errors.OutOfMemoryError as error:
        return str(error)
    return ""


def quantised() -> str:
    """What is said of a model with a linear layer of another class."""
    import torch

    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.ones(2, 2))
    model = types.SimpleNamespace(diffusion_model=torch.nn.ModuleDict({"to_q": layer}))
    denoiser, errors = of_the_pack("nodes.host.denoiser"), of_the_pack("duolora_core.errors")
    try:
        denoiser.unet_layout(model)
    except errors.ModelMismatchError as error:
        return str(error)
    return ""


def out_of_memory() -> dict[str, bool]:
    """Which errors count as that."""
    import torch

    says = of_the_pack("nodes.host.memory").is_out_of_memory
    texts = ("shapes cannot be multiplied", "MPS backend out of memory (MPS allocated: 9 GB)")
    raised = (torch.cuda.OutOfMemoryError("full"), *map(RuntimeError, texts))
    return {str(error): says(error) for error in raised}


if __name__ == "__main__":
    main()
