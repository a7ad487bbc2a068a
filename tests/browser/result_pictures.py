"""What each workflow shows in the template browser: its own result, made on the shapes world."""

from __future__ import annotations

from PIL import Image

from host.comfy_host import ComfyServer
from host.small_world import furnish, run_small, save_what_others_reuse
from node_types import PREFIX
from workflow_files import FOLDER, Workflow, workflows

LONGER_SIDE = 512
QUALITY = 88
RESULTS = (f"{PREFIX}CompareGrid", "SaveImage")
"""The nodes whose picture is a workflow's result, the better one first."""
TRAINING_STEPS = 200
"""Of a LoRA that a workflow trains: enough for the small model to learn its few pictures."""


def make_result_pictures(server: ComfyServer, only: str = "") -> None:
    """Runs every workflow with the steps that it was saved with, and writes a .jpg beside it.

    The version for another ComfyUI gets the picture of its twin.
    """
    furnish(server)
    save_what_others_reuse(server)
    for workflow in workflows():
        if workflow.is_older or only not in workflow.name:
            continue
        images = server.images(run_small(server, workflow, training_steps=TRAINING_STEPS))
        picture = fitted(Image.fromarray(images[result_node(workflow)][0]))
        for path in FOLDER.glob(f"{workflow.name}*.json"):
            picture.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


def result_node(workflow: Workflow) -> str:
    """The rightmost of the best kind."""
    for kind in RESULTS:
        places = [(node["pos"][0], str(key)) for key, node in workflow.nodes.items() if node["type"] == kind]
        if places:
            return max(places)[1]
    raise ValueError(f"workflows/{workflow.name}.json shows no picture: give it a Save Image")


def fitted(picture: Image.Image) -> Image.Image:
    """With this longer side; the small world's own pixels stay squares."""
    scale = LONGER_SIDE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
