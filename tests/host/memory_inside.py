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
from unittest import mock

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
        "estimate_over_measured": {mode: estimate_over_measured(mode) for mode in modes()},
        "as_set": [as_set(free) for free in (64, 3, 1)],
        "scores": scores(),
        "workspaces": workspaces(),
        "precision": precision(),
        "not_whole": not_whole(),
        "quantised": quantised(),
        "out_of_memory": out_of_memory(),
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def of_the_pack(module: str) -> Any:
    return importlib.import_module(f"duolora_pack.{module}")


def modes() -> list[str]:
    """Of checkpointing."""
    return list(of_the_pack("duolora_core.model.memory.estimate").CHECKPOINTED_LEVELS)


def as_set(free_gb: int) -> dict[str, Any]:
    """What a training starts with, and says before it starts, whose artist wants 2 samples and no checkpointing.

    On Segmind-Vega at 1024 px, of which a sample needs about 2 GB, in a card with so much beside the weights.
    """
    import comfy.ops
    import torch

    from benchmarks.ldm_unet import SEGMIND_VEGA
    from benchmarks.speed import memory_plan

    model = torch.nn.Module()
    model.diffusion_model = inside_host.unet("SEGMIND_VEGA", comfy.ops.disable_weight_init, torch.bfloat16)
    patcher = types.SimpleNamespace(model=model, load_device=torch.device("cpu"), model_options={})
    patcher.clone = lambda: patcher
    denoiser, said = of_the_pack("nodes.host.denoiser"), []
    subject = memory_plan.subject(SEGMIND_VEGA)
    replaced: dict[str, Any] = {
        "storage": lambda patcher: subject.storage,
        "load_whole": lambda patcher, best, least: None,
        "free_memory": lambda device: free_gb * 2**30,
        "tell": said.append,
        "HostDenoiser": lambda *arguments: None,
    }
    limits = denoiser.Limits(micro_batch=2, checkpointing=False, compute="as loaded")
    with (
        mock.patch.multiple(denoiser, **replaced),
        denoiser.training_denoiser(patcher, subject.work(1024), limits) as (_, plans),
    ):
        return {"plan": str(plans.current), "said": list(said), "notes": list(plans.notes)}


def scores() -> dict[str, Any]:
    """{device: [channels of a head, bytes of a number] of what attention holds; None where a kernel is fused}."""
    import torch

    asked, empty = of_the_pack("nodes.host.memory").attention_scores, torch.empty

    def found(device: str, fused: bool = False) -> list[int] | None:
        cuda = torch.backends.cuda
        with (
            mock.patch.object(torch, "empty", lambda *shape, device, **kinds: empty(*shape, **kinds)),
            mock.patch.object(cuda, "can_use_flash_attention", lambda asked: False),
            mock.patch.object(cuda, "can_use_efficient_attention", lambda asked: fused),
        ):
            held = asked(torch.device(device), torch.bfloat16, 64)
        return held and [held.head_channels, held.element_size]

    cuda = torch.backends.cuda
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    told: dict[str, Any] = {"cpu": found("cpu"), "nvidia": found("cuda", fused=True)}
    for name, allowed in (("half", True), ("float32", False)):
        cuda.allow_fp16_bf16_reduction_math_sdp(allowed)
        told[name] = {"mps": found("mps"), "amd": found("cuda")}
    cuda.allow_fp16_bf16_reduction_math_sdp(before)
    return told


def workspaces() -> dict[str, int]:
    """Bytes that a training may not use of those that are free, by device, beside the host's own reserve."""
    import comfy.model_management as management
    import torch

    with mock.patch.object(management, "get_free_memory", lambda device: 2**40):
        free = of_the_pack("nodes.host.memory").free_memory
        reserved = management.extra_reserved_memory()
        return {kind: 2**40 - reserved - free(torch.device(kind)) for kind in ("cpu", "mps", "cuda")}


def estimate_over_measured(checkpointing: Any) -> float:
    """For one student of SDXL at 512 px under rank-64 LoRAs on attention, in the host's UNet and bf16."""
    import comfy.ops
    import torch

    from benchmarks.speed import memory_plan
    from benchmarks.speed.live_memory import LiveMemory

    block_levels = of_the_pack("duolora_core.model.memory.activations").block_levels
    network = inside_host.unet("SDXL", comfy.ops.disable_weight_init, torch.bfloat16).requires_grad_(False)
    subject = memory_plan.subject()
    plan = memory_plan.MemoryPlan(1, checkpointing)
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
        of_the_pack("nodes.host.gradient_checkpointing").checkpointable(
            network, block_levels(subject.pair.layout)
        ) as switch,
        memory_plan.attach(modules, subject.pair, gates) as gated,
        LiveMemory() as memory,
        gated.branches(["merge"]),
    ):
        switch.plan = plan
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
