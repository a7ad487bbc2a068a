"""What scripts that run inside a host's python share; run itself, it prints the nodes of the pack as JSON.

python inside_host.py --host PATH --pack PATH
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEPTHS: dict[str, dict[str, Any]] = {
    "SDXL": {"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0] * 3 + [2] * 3 + [10] * 3},
    "SSD_1B": {"transformer_depth": [0, 0, 2, 2, 4, 4], "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4]},
    "SEGMIND_VEGA": {"transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_output": [0] * 3 + [1] * 3 + [2] * 3},
}


def main() -> None:
    wanted = entered("pack")
    load_pack(wanted.pack)
    tell(catalogue())


def entered(*paths: str) -> argparse.Namespace:
    """A script's arguments, --host and these paths; the host can be imported then."""
    parser = argparse.ArgumentParser()
    for name in ("host", *paths):
        parser.add_argument(f"--{name}", type=Path, required=True)
    wanted = parser.parse_args()
    enter(wanted.host)
    return wanted


def tell(found: object) -> None:
    """The last line of a script's output, which `Host.ask` reads."""
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def enter(host: Path) -> None:
    """Makes the host importable, for a machine without a GPU."""
    os.chdir(host)
    sys.path.insert(0, str(host))
    sys.argv = sys.argv[:1]
    sys.modules["comfy.zluda"] = types.ModuleType("comfy.zluda")  # one fork installs packages when it is imported
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def config_of(name: str) -> dict[str, Any]:
    """The host's settings of a real model."""
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "num_classes": "sequential",
        "adm_in_channels": 2816,
        "context_dim": 2048,
        "num_head_channels": 64,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth_middle": 10 if name == "SDXL" else -1,
        "legacy": False,
        **DEPTHS[name],
    }


def unet(name: str, operations: Any, dtype: Any = None) -> Any:
    """A real model in the host's own class, on the meta device."""
    import torch
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(
        **config_of(name), dtype=dtype or torch.float32, device=torch.device("meta"), operations=operations
    )


def load_pack(pack: Path) -> Any:
    """The pack as a module, loaded the way the host does it."""
    spec = importlib.util.spec_from_file_location(
        "duolora_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["duolora_pack"] = module
    spec.loader.exec_module(module)
    return module


def of_the_pack(module: str) -> Any:
    return importlib.import_module(f"duolora_pack.{module}")


def nodes_of_the_pack() -> list[Any]:
    """The node classes that the pack hands to the host."""
    extension = asyncio.run(sys.modules["duolora_pack"].comfy_entrypoint())
    return asyncio.run(extension.get_node_list())


def raised(call: Callable[..., object], *arguments: object) -> str:
    """What the error says that a call must end with."""
    try:
        call(*arguments)
    except Exception as error:
        assert type(error).__module__ == "duolora_pack.duolora_core.errors", repr(error)
        return str(error)
    raise AssertionError(f"{call} raised nothing")


def catalogue() -> dict[str, Any]:
    """{"schema": what saved graphs refer to, "words": what translations translate}, both by node id."""
    import folder_paths

    # The files of this machine are no part of a schema: a list of files is empty but for our own entries.
    folder_paths.get_filename_list = lambda folder_name: []
    schema: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for node in nodes_of_the_pack():
        of = node.GET_SCHEMA()
        outputs = [{"name": each.display_name or each.id, "type": each.get_io_type()} for each in of.outputs]
        schema[of.node_id] = {
            "category": of.category,
            "inputs": [saved_input(each) for each in of.inputs],
            "outputs": outputs,
        }
        words[of.node_id] = {
            "display_name": of.display_name,
            "description": of.description,
            "inputs": {each.id: {"name": each.display_name or each.id, "tooltip": each.tooltip} for each in of.inputs},
            "outputs": {
                str(index): {"name": output["name"], "tooltip": each.tooltip}
                for index, (each, output) in enumerate(zip(of.outputs, outputs, strict=True))
            },
        }
    return {"schema": schema, "words": words}


def saved_input(each: Any) -> dict[str, Any]:
    """One input of a schema, as far as saved graphs depend on it."""
    row = {"name": each.id, "type": each.get_io_type()}
    if each.optional:
        row["optional"] = True
    if getattr(each, "default", None) is not None:
        row["default"] = each.default
    if getattr(each, "control_after_generate", None):
        row["control_after_generate"] = True  # a second value in a saved graph
    if getattr(each, "options", None):
        row["options"] = list(each.options)
    return row


if __name__ == "__main__":
    main()
