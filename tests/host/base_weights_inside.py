"""Runs inside a host's python: what `base_weights` gives for plain, patched and quantised layers, printed as JSON.

python base_weights_inside.py --host PATH --pack PATH
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    inside_host.load_pack(wanted.pack)
    sys.stdout.write("\n" + json.dumps(found()) + "\n")


def found() -> dict[str, Any]:
    """{case: [dtype, first number]} of a model whose weights are 2 and biases 3, with a patch of +5 in force."""
    import comfy.model_patcher
    import torch

    class Scaled(torch.nn.Linear):
        """As the host's own layers of scaled fp8: the numbers in memory are a fourth of the weight's."""

        def convert_weight(self, weight: Any, inplace: bool = False, **_: Any) -> Any:
            return weight.float() * 4

    unet = torch.nn.ModuleDict(
        {"plain": torch.nn.Linear(2, 2), "bare": torch.nn.Linear(2, 2, bias=False), "scaled": Scaled(2, 2)}
    ).half()
    for name, parameter in unet.named_parameters():
        parameter.data.fill_(3.0 if name.endswith("bias") else 0.5 if "scaled" in name else 2.0)
    model = torch.nn.Module()
    model.diffusion_model = unet
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
    key = "diffusion_model.plain.weight"
    patcher.add_patches({key: ("diff", (torch.full((2, 2), 5.0),))}, 1.0)
    patcher.patch_model()
    weight = importlib.import_module("duolora_pack.nodes.host.base_weights").base_weights(patcher, None)
    told = {name: weight(name) for name in ("plain", "plain.bias", "bare", "bare.bias", "scaled", "missing")}
    in_force = model.get_parameter(key)
    return {
        "in force": [str(in_force.dtype), float(in_force[0, 0])],
        **{name: None if each is None else [str(each.dtype), float(each.flatten()[0])] for name, each in told.items()},
    }


if __name__ == "__main__":
    main()
