"""Runs inside a host's python: how we read each name that the host's key map has for SDXL's text encoders, as JSON.

python text_keys_inside.py --host PATH --pack PATH

Printed is {"known": names in the map, "wrong": {name: what the host makes of ours, or None}}.
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
    import comfy.lora
    import comfy.sdxl_clip
    import torch

    keys: Any = importlib.import_module("duolora_pack.duolora_core.lora.keys")
    with torch.device("meta"):
        encoders = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16)
    known = comfy.lora.model_lora_keys_clip(encoders, {})
    ours = {spelled: known.get(keys.text_layer(spelled)) for spelled in known}
    return {"known": len(known), "wrong": {each: ours[each] for each in known if ours[each] != known[each]}}


if __name__ == "__main__":
    main()
