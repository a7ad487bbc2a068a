"""What each workflow shows in the template browser: its own result, made on the shapes world, on a card of one size."""

from __future__ import annotations

from PIL import Image

from duolora_core.report.canvas import MUTED, Canvas
from duolora_core.report.picture_grid import picture_grid
from host.comfy_host import ComfyServer
from host.small_world import furnish, run_small, save_what_others_reuse
from node_types import PREFIX
from workflow_files import FOLDER, Workflow, workflows

CARD = (640, 480)
"""Of the shape in which a template browser shows it, so that nothing is cut off."""
MARGIN, CAPTION = 8, 26
PAINTED_BY = "painted by the shapes world, a small test model"
QUALITY = 88
GRID, PICTURE = f"{PREFIX}CompareGrid", "SaveImage"
ACROSS, DOWN = 3, 2
"""Of the pictures of a workflow that shows them one by one."""
TRAINING_STEPS = 600
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
        picture = card(result(server, workflow))
        for path in FOLDER.glob(f"{workflow.name}*.json"):
            picture.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


def result(server: ComfyServer, workflow: Workflow) -> Image.Image:
    """The rightmost Compare Grid; where there is none, a batch of what it saves."""
    grid, picture = _last(workflow, GRID), _last(workflow, PICTURE)
    batch = None if grid else ACROSS * DOWN
    images = server.images(run_small(server, workflow, training_steps=TRAINING_STEPS, batch=batch))
    shown = [Image.fromarray(image) for image in images[grid or picture]]
    if grid:
        return shown[0]
    rows = [shown[i : i + ACROSS] for i in range(0, len(shown), ACROSS)]
    return picture_grid(rows, [""] * DOWN, [""] * ACROSS, cell=2 * shown[0].width)


def _last(workflow: Workflow, node_type: str) -> str:
    """The rightmost node of a type, "" if there is none."""
    places = [(node["pos"][0], str(key)) for key, node in workflow.nodes.items() if node["type"] == node_type]
    return max(places, default=(0, ""))[1]


def card(picture: Image.Image) -> Image.Image:
    """A picture as large as it fits on paper, and who has painted it."""
    canvas = Canvas(CARD)
    canvas.picture(canvas.box.inset(MARGIN, MARGIN, MARGIN, CAPTION), picture)
    canvas.text(CARD[0] / 2, CARD[1] - CAPTION / 2, PAINTED_BY, 14, MUTED, "centre")
    return canvas.image()
