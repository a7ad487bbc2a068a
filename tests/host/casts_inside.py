"""Runs inside a host's python: a small UNet stored in fp16 that computes in fp32, with and without `casts_not_held`.

python casts_inside.py --host PATH --pack PATH
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script

NARROW = {"model_channels": 32, "num_head_channels": 16, "context_dim": 64, "adm_in_channels": 48}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    inside_host.load_pack(wanted.pack)
    found = {f"checkpointing {flag}": compared(flag) for flag in (False, True)}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def compared(checkpointing: bool) -> dict[str, Any]:
    """Bytes that a forward saves for its backward, what the weights would take, and whether anything else differs."""
    import torch
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import manual_cast

    pack = importlib.import_module("duolora_pack.nodes.host.casts")
    checkpointable = importlib.import_module("duolora_pack.nodes.host.gradient_checkpointing").checkpointable
    estimate = importlib.import_module("duolora_pack.duolora_core.model.memory.estimate")
    layouts = importlib.import_module("duolora_pack.duolora_core.model.layout")
    block_levels = importlib.import_module("duolora_pack.duolora_core.model.memory.activations").block_levels
    plan = estimate.MemoryPlan(1, "all" if checkpointing else "none")
    config = inside_host.config_of("SEGMIND_VEGA") | NARROW
    torch.manual_seed(0)
    network: Any = UNetModel(**config, dtype=torch.float16, device="cpu", operations=manual_cast)
    for parameter in network.requires_grad_(False).parameters():
        parameter.normal_(std=0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    weighted = {name: m for name, m in network.named_modules() if getattr(m, "weight", None) is not None}
    levels = block_levels(layouts.layout_from_shapes({name: tuple(m.weight.shape) for name, m in weighted.items()}))
    matrices = [each for each in network.parameters() if each.ndim > 1]
    x, text, pooled = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 64), torch.randn(2, 48)

    def run() -> tuple[list[Any], int]:
        at, saved = x.clone().requires_grad_(), dict[int, Any]()

        def note(tensor: Any) -> Any:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with checkpointable(network, levels) as switch, contextlib.nullcontext() if checkpointing else hooks:
            switch.plan = plan
            y = network(at, torch.tensor([10.0, 900.0]), context=text, y=pooled, transformer_options={})
            y.square().mean().backward()
        return [y.detach(), at.grad], sum(each.nbytes() for each in saved.values())

    plain = run()
    with pack.casts_not_held(network):
        ours = run()
    return {
        "equal": [torch.equal(one, other) for one, other in zip(plain[0], ours[0], strict=True)],
        "moved": bool(plain[0][1].any()),
        "saved": [plain[1], ours[1]],
        "converted": 4 * sum(each.numel() for each in matrices),
        "left": [name for name, module in network.named_modules() if "forward" in module.__dict__],
    }


if __name__ == "__main__":
    main()
