"""Trainings whose numbers overflow: nothing that they have reached is thrown away."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node
from host.merge_graphs import add_merge, add_save, models_only, saved_name
from host.narrow import CONTENT, STYLE
from host.test_baselines import baseline
from host.test_resume_merge import nothing_kept, reached, unfinished
from host.training_graphs import CONTENT_LORA, INFO, add_picture, add_training, core_save, same

__all__ = ["nothing_kept"]

STEPS = 4
LORA, MERGE_INFO = 1, 3
KINDS = {"ZipRank Merge": 2, "ZipLoRA": 2, "Train Concept LoRA": 2, "UnZip Image": 4}
"""Forwards with gradient before the third step; UnZip Image scores columns by two more."""


def training(server: ComfyServer, checkpoint: str, kind: str, good: int, what: str, seed: int, resume: bool) -> Graph:
    """A training of few steps that overflows after so many forwards, with its info and its LoRA saved by core."""
    graph = models_only(checkpoint)
    graph["spoiled"] = node("DuoLoRATestOverflow", model=["checkpoint", 0], good=good, what=what)
    given: dict[str, Any] = {"model": ["spoiled", 0], "steps": STEPS, "seed": seed}
    if kind == "ZipRank Merge":
        options = {"resume": resume}
        add_merge(graph, CONTENT, STYLE, name="train", cycle_weight=0.0, options=options, **given)
        lora, info = LORA, MERGE_INFO
    elif kind == "ZipLoRA":
        add_merge(graph, CONTENT, STYLE, name="pair", options={"resume": resume})
        del graph["pair"]
        graph["train"] = baseline("ZipLoRA", options=["pair.options", 0])
        graph["train"]["inputs"] |= given
        lora, info = 2, 4
    else:
        picture, node_type = add_picture(server, graph, "dog"), kind.replace(" ", "").replace("Lora", "LoRA")
        add_training(server, graph, picture, kind=node_type, options={"resume": resume}, **given)
        lora, info = CONTENT_LORA, INFO
    graph["info"] = node("PreviewAny", source=["train", info])
    graph["file"] = core_save(server, ["train", lora], f"loras/{prefix_of(kind, what, good, resume)}")
    return graph


def prefix_of(kind: str, *settings: Any) -> str:
    return "_".join([kind.replace(" ", ""), *map(str, settings)])


def ended(server: ComfyServer, graph: Graph) -> tuple[str, dict[str, Tensor]]:
    """What the training node said, and the LoRA that core saved of it."""
    said = server.texts(server.run(graph, 600))["info"][0]
    prefix = graph["file"]["inputs"]["prefix"]
    newest = max((server.base / "output").glob(f"{prefix}_*"), key=lambda path: path.stat().st_mtime_ns)
    return said, load_file(newest)


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_was_reached_is_handed_out_and_can_be_gone_on_with(server: ComfyServer, narrow: str, kind: str) -> None:
    """At step 3: a LoRA of finite numbers with a note. The state stays: where the numbers hold this time (a wrapper
    that counts anew), the same graph goes on, and ends as if nothing had been."""
    graph = training(server, narrow, kind, KINDS[kind], "output", 401, resume=True)
    said, lora = ended(server, graph)
    assert "Training stopped at step 3: the loss" in said and "is not a finite number" in said
    assert ("The best gates so far are kept." in said) == (kind in ("ZipRank Merge", "ZipLoRA"))
    assert said.splitlines()[0].endswith("s") and "2 steps in" in said.splitlines()[0]
    assert lora and all(bool(tensor.isfinite().all()) for tensor in lora.values())
    assert len(unfinished(server)) == 1 and reached(server) == 2
    said, gone_on = ended(server, graph)
    assert "resumed after step 2" in said and "not a finite" not in said
    assert unfinished(server) == []
    said, whole = ended(server, training(server, narrow, kind, 100, "output", 401, resume=False))
    assert "not a finite" not in said and same(gone_on, whole)


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("kind", ["ZipRank Merge", "UnZip Image"])
def test_before_any_step_has_succeeded_there_is_an_error(server: ComfyServer, narrow: str, kind: str) -> None:
    graph = training(server, narrow, kind, 0, "output", 402, resume=True)
    with pytest.raises(GraphFailed, match=r"step 1: .* not a finite number .* No step had succeeded before it"):
        server.run(graph, 600)
    assert unfinished(server) == []


@pytest.mark.parametrize("kind", ["ZipLoRA", "Train Concept LoRA"])
def test_a_gradient_that_overflows_is_told_and_changes_nothing(server: ComfyServer, narrow: str, kind: str) -> None:
    said, lora = ended(server, training(server, narrow, kind, 1, "gradient", 403, resume=False))
    assert "a gradient overflowed; the step was repeated with 1/64 of the loss scale" in said
    said, whole = ended(server, training(server, narrow, kind, 100, "gradient", 403, resume=False))
    assert "overflowed" not in said and same(lora, whole)


def test_a_merge_that_ended_early_is_saved_as_such(server: ComfyServer, narrow: str) -> None:
    """Its report has masks, and its recipe says how many steps there were."""
    graph = training(server, narrow, "ZipRank Merge", 2, "output", 404, resume=False)
    graph["report"] = node("DuoLoRAMergeReport", merged=["train", 0])
    graph["words"] = node("PreviewAny", source=["report", 1])
    add_save(graph, ["train", 0], "not_finite/merged")
    words = server.texts(server.run(graph, 600))["words"][0]
    assert "the content keeps" in words
    name = saved_name(server, "not_finite/merged")
    assert '"ended_after": 2' in (server.loras / name).read_bytes().decode("latin-1").replace('\\"', '"')
