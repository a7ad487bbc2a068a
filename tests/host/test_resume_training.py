"""Trainings from pictures that stop and go on: the LoRAs are, bit for bit, those of a training without a stop."""

from __future__ import annotations

from typing import Any

import pytest

from host.cancelling import cancelled, steps_shown
from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.merge_graphs import models_only
from host.test_resume_merge import nothing_kept, reached, unfinished
from host.training_graphs import INFO, add_picture, add_training, same, saved_lora

__all__ = ["nothing_kept"]

STEPS = 8
KINDS: dict[str, dict[str, Any]] = {
    "DreamBooth": {"kind": "TrainConceptLoRA", "class_prompt": "a photo of a dog", "batch_size": 2},
    "UnZipLoRA": {"kind": "UnZipImage"},
}
FEW = {"own_pictures": 2, "own_pictures_steps": 2}


def training(server: ComfyServer, checkpoint: str, kind: str, **options: Any) -> Graph:
    graph = models_only(checkpoint)
    picture = add_picture(server, graph, "dog")
    add_training(server, graph, picture, steps=STEPS, seed=301, options=FEW | options, **KINDS[kind])
    graph["info"] = node("PreviewAny", source=["train", INFO])
    return graph


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("kind", list(KINDS))
def test_after_cancel_the_same_graph_goes_on(server: ComfyServer, narrow: str, kind: str) -> None:
    """UnZipLoRA opens columns after steps 0, 3 and 5: what was opened before the stop stays open."""
    graph = training(server, narrow, kind)
    shown = cancelled(server, graph, "train", steps=STEPS, at=2).shown
    assert len(unfinished(server)) == 1
    behind = reached(server)
    assert shown[-1] <= behind <= shown[-1] + 1  # a step that is done counts, even if Cancel came before its picture
    with server.events() as stream:
        prompt_id = server.queue(graph)
        said = server.texts(server.wait(prompt_id, 600))["info"][0]
        stream.wait_until_finished(prompt_id)
        shown = steps_shown(stream, prompt_id, "train", STEPS)
    assert f"resumed after step {behind}, where" in said
    assert shown == list(range(behind + 1, STEPS + 1))
    assert unfinished(server) == []
    gone_on = saved_lora(server, graph, f"goes_on/{kind}")
    whole = saved_lora(server, training(server, narrow, kind, resume=False), f"goes_on/whole_{kind}")
    assert same(gone_on, whole)
