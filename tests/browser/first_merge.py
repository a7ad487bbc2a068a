"""The first workflow while it trains, as the README shows it: the live picture stands on ZipRank Merge."""

from __future__ import annotations

from pathlib import Path

from browser.comfy_page import ComfyPage
from browser.png import save_png
from host.small_world import furnish
from workflow_files import workflows
from workflow_on_small_model import on_small_model

MERGE = "DuoLoRAZipRankMerge"
SHOWN_AFTER = 0.6
"""Of the training: enough for its curves to be seen, and it still goes on."""
GROUPS = 3
"""How many groups from the left are shown: the notes and the picture at the right are not what this is about."""


def take_first_merge(comfy: ComfyPage, path: Path) -> None:
    """Run it on the shapes world, and show it with the prompts and sizes that it was saved with."""
    furnish(comfy.server)
    comfy.open()  # its lists of files are those of a page's start
    workflow = workflows()[0]
    comfy.load(workflow.saved, workflow.name)
    as_saved = comfy.prompt()
    comfy.set_inputs(on_small_model(as_saved))
    merge = comfy.node_of(MERGE)
    steps = as_saved[merge]["inputs"]["steps"]
    comfy.run()
    comfy.wait_for_step(merge, round(SHOWN_AFTER * steps), steps)
    comfy.set_inputs(as_saved)
    _, (left, top, _, _) = workflow.groups[1]
    boxes = [box for _, box in workflow.groups[1:GROUPS]]
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    save_png(comfy.picture(comfy.show_area((left, top, right, bottom))), path)
    comfy.cancel()
    comfy.wait_until_idle()
