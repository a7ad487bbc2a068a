"""A picture of each of our nodes as the page draws it, with the widgets filled in as an artist would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser.comfy_page import ComfyPage
from browser.png import save_png
from host.node_schema import read_schema

FILLED: dict[str, dict[str, Any]] = {
    "DuoLoRALoadContent": {"lora_name": "my_dog_sdxl.safetensors", "prompt": "a photo of a sks dog sitting on grass"},
    "DuoLoRALoadStyle": {
        "lora_name": "watercolor_style_sdxl.safetensors",
        "prompt": "a watercolor painting of a house by a river in wtrclr style",
    },
    "DuoLoRAZipRankMerge": {"combined_prompt": "a watercolor painting of a sks dog in wtrclr style"},
    "DuoLoRATrainConceptLoRA": {"prompt": "a photo of a sks dog sitting on grass"},
    "DuoLoRAUnZipImage": {
        "prompt": "a watercolor painting of a sks dog in wtrclr style",
        "content_prompt": "a sks dog",
        "style_prompt": "a watercolor painting in wtrclr style",
    },
    "DuoLoRALoadMasks": {"masks": "duolora/merged_00001.masks.safetensors"},
}
"""By node; the others show their defaults."""

WIDTH, MARGIN = 400, 10


def add_files(loras: Path) -> None:
    """Empty files under the names that are shown, so that the page finds them in its lists."""
    for values in FILLED.values():
        for name in (values.get("lora_name"), values.get("masks")):
            if name:
                path = loras / name
                path.parent.mkdir(exist_ok=True)
                path.touch()


def take_node_pictures(comfy: ComfyPage, folder: Path) -> None:
    """One PNG for each node, named by its id."""
    folder.mkdir(parents=True, exist_ok=True)
    for node_type in read_schema():
        node_id = comfy.show_alone(node_type, WIDTH)
        comfy.set_inputs({node_id: {"class_type": node_type, "inputs": FILLED.get(node_type, {})}})
        comfy.look_at(node_id)
        save_png(comfy.picture(comfy.box(node_id, MARGIN)), folder / f"{node_type}.png")
