"""Runs inside a host's python: what the pack loads from LORA_STACKs, printed as JSON.

python stack_inside.py --host PATH --pack PATH --loras FOLDER --stacks '{"one": [["dog.safetensors", 1.0, 0.5]]}'

Printed is {stack: [[name, strength, strength in the text encoders, prompt], …] or the error's words}.
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
    for name in ("host", "pack", "loras"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--stacks", required=True)
    wanted = parser.parse_args()
    inside_host.enter(wanted.host)
    inside_host.load_pack(wanted.pack)
    import folder_paths

    folder_paths.add_model_folder_path("loras", str(wanted.loras), is_default=True)
    sys.stdout.write(
        "\n" + json.dumps({name: loaded(stack) for name, stack in json.loads(wanted.stacks).items()}) + "\n"
    )


def loaded(stack: Any) -> list[list[Any]] | str:
    """One stack, at twice its strengths."""
    loaded_stack = importlib.import_module("duolora_pack.nodes.run.loaded_stack").loaded_stack
    errors = importlib.import_module("duolora_pack.duolora_core.errors")
    try:
        found = loaded_stack(stack, "style", strength=2.0)
    except errors.DuoLoraError as error:
        return str(error)
    return [[each.file.name, each.strength, each.text_strength, each.prompt] for each in found]


if __name__ == "__main__":
    main()
