"""Live samples: they are shown while a merge trains, they leave the training alone, and Cancel ends them as well."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from duolora_core.merge.masks_file import read_masks
from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.merge_graphs import add_merge, add_save, give_pictures, models_only
from host.narrow import CONTENT, STYLE

BESIDE_THE_LOSSES = (300, 60, 490, 240)  # left, top, right, bottom of what a sample covers in the preview


def merge(checkpoint: str, every: int | None, steps: int = 4) -> Graph:
    options = {} if every is None else {"sample_every": every}
    return add_merge(models_only(checkpoint), CONTENT, STYLE, seed=95, steps=steps, options=options)


def masks(server: ComfyServer, checkpoint: str, every: int | None) -> tuple[dict[str, Tensor], Image.Image | None]:
    """What is saved, and the last preview of the merge node; None where it did not have to train."""
    prefix = f"live/every_{every}"
    with server.events() as stream:
        prompt_id = server.queue(add_save(merge(checkpoint, every), ["merge", 0], prefix, what="masks only"))
        server.wait(prompt_id, 300)
        stream.wait_until_finished(prompt_id)
        previews = [each for each in stream.previews if each.size == (512, 512)]
    (path,) = server.loras.glob(f"{prefix}_0*")
    return dict(read_masks(path).values), previews[-1] if previews else None


def colours(preview: Image.Image) -> float:
    """How colourful the place of the sample is: white paper with a grey or blue line has next to none."""
    pixels = np.asarray(preview.crop(BESIDE_THE_LOSSES), dtype=float)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def test_samples_are_shown_and_the_masks_are_the_same_bit_for_bit(server: ComfyServer, narrow: str) -> None:
    """Also for a graph that was saved before there was such an input."""
    plain, without = masks(server, narrow, None)
    off, again = masks(server, narrow, 0)
    on, with_sample = masks(server, narrow, 2)
    for other in (off, on):
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[name], other[name]) for name in plain)
    assert again is None  # the same as without the input, so the masks are those of before
    assert without is not None and with_sample is not None
    assert colours(with_sample) > 2 * colours(without) + 5


def test_a_sample_without_memory_ends_the_samples_and_not_the_training(server: ComfyServer, narrow: str) -> None:
    """With pictures of one size, so that only samples go through the model one at a time."""
    graph = models_only(narrow)
    graph["scarce"] = node("DuoLoRATestScarceMemory", model=["checkpoint", 0], failures=0, single=True)
    add_merge(graph, CONTENT, STYLE, seed=96, steps=4, model=["scarce", 0], options={"sample_every": 1})
    give_pictures(server, graph)
    graph["merge.style"]["inputs"]["pictures"] = ["content", 0]
    del graph["style"]
    graph["info"] = node("PreviewAny", source=["merge", 3])
    info = server.texts(server.run(graph, 300))["info"][0]
    assert info.startswith("4 steps in")
    assert info.count("live samples ended at step 1: memory ran out") == 1
