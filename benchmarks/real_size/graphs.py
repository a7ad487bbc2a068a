"""The three graphs: workflow 01 as an artist runs it, the same picture by core alone, and from the saved file."""

from __future__ import annotations

from host.graphs import Graph, node
from workflow_files import api_graph, workflows

CHECKPOINT, CONTENT, STYLE = (
    "sd_xl_base_1.0.safetensors",
    "my_dog_sdxl.safetensors",
    "watercolor_style_sdxl.safetensors",
)
"""As workflow 01 names them."""
SIDE, STEPS = 256, 3


def merge_graph() -> Graph:
    """Workflow 01 at 256 px, with 3 training steps, 3 sampling steps and one own picture of each LoRA."""
    (workflow,) = [each for each in workflows() if each.name.startswith("01")]
    graph = api_graph(workflow)
    sizes = {
        "EmptyLatentImage": {"width": SIDE, "height": SIDE},
        "KSampler": {"steps": STEPS},
        "DuoLoRAZipRankMerge": {"resolution": SIDE, "steps": STEPS, "options": ["options", 0]},
    }
    for each in graph.values():
        each["inputs"] |= sizes.get(each["class_type"], {})
    graph["options"] = node("DuoLoRAMergeOptions", own_pictures=1, own_pictures_steps=STEPS)
    return graph


def core_graph(loras: list[str]) -> Graph:
    """The same picture with core's Load LoRA in place of every node of the pack."""
    whole = merge_graph()
    graph = {key: each for key, each in whole.items() if not each["class_type"].startswith("DuoLoRA")}
    (checkpoint,) = [key for key, each in graph.items() if each["class_type"] == "CheckpointLoaderSimple"]
    model, clip = [checkpoint, 0], [checkpoint, 1]
    for index, name in enumerate(loras):
        key = f"lora{index}"
        graph[key] = node("LoraLoader", model=model, clip=clip, lora_name=name, strength_model=1.0, strength_clip=1.0)
        model, clip = [key, 0], [key, 1]
    for each in graph.values():
        if each["class_type"] == "KSampler":
            each["inputs"]["model"] = model
        if each["class_type"] == "CLIPTextEncode":
            each["inputs"]["clip"] = clip
    return graph
