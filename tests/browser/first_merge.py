"""The first workflow while it trains, as the README shows it: the live picture stands on ZipRank Merge."""

from __future__ import annotations

from pathlib import Path

from browser.comfy_page import ComfyPage
from browser.png import save_png
from host.small_world import furnish
from workflow_files import workflows
from workflow_on_small_model import on_small_model

MERGE = "DuoLoRAZipRankMerge"
SHOWN_AFTER = 60
"""Steps of the merge: enough for its curves to be seen, and it still trains."""


def take_first_merge(comfy: ComfyPage, path: Path) -> None:
    """Run it on the shapes world, and show it with the prompts and sizes that it was saved with."""
    furnish(comfy.server)
    comfy.open()  # its lists of files are those of a page's start
    workflow = workflows()[0]
    comfy.load(workflow.saved, workflow.name)
    as_saved = comfy.prompt()
    comfy.set_inputs(on_small_model(as_saved))
    merge = comfy.node_of(MERGE)
    comfy.run()
    comfy.wait_for_step(merge, SHOWN_AFTER)
    comfy.set_inputs(as_saved)
    comfy.fit_view()
    save_png(comfy.picture(), path)
    comfy.cancel()
    comfy.wait_until_idle()
