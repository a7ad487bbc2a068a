"""The combined prompt counts where the cycle loss reads it, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from safetensors.numpy import load_file

from host.cancelling import cancelled, steps_shown
from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.merge_graphs import add_merge, add_save, executed, models_only, saved_name
from host.narrow import CONTENT, STYLE
from host.test_resume_merge import nothing_kept, reached

__all__ = ["nothing_kept"]

STEPS = 5
NOT_AGAIN = "not trained again"
PLAN = re.compile(r"\(.* model, .* LoRAs, .* activations\)")


def merging(checkpoint: str, prompt: str, seed: int, **settings: Any) -> Graph:
    settings = {"steps": STEPS, "cycle_weight": 0.0, **settings}
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=seed, combined_prompt=prompt, **settings)
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return graph


def ran(server: ComfyServer, graph: Graph) -> tuple[str, list[int]]:
    """What the merge said, and the training steps that were shown; it must have been executed."""
    with server.events() as stream:
        prompt_id = server.queue(graph)
        history = server.wait(prompt_id, 600)
        stream.wait_until_finished(prompt_id)
        shown = steps_shown(stream, prompt_id, "merge", graph["merge"]["inputs"]["steps"])
    assert "merge" in executed(history)
    return server.texts(history)["info"][0], shown


def test_without_the_cycle_another_combined_prompt_trains_nothing(server: ComfyServer, narrow: str) -> None:
    """The masks are the same; the file tells the new prompt as its trigger phrase."""
    files: list[dict[str, Any]] = []
    for prompt in ("a sks dog in wtrclr style", "a sks dog, wtrclr"):
        graph = merging(narrow, prompt, 501)
        said, shown = ran(server, add_save(graph, ["merge", 0], f"combined/{len(files)}", what="masks only"))
        assert shown == ([] if files else list(range(1, STEPS + 1)))
        assert (NOT_AGAIN in said) == bool(files)
        (path,) = (server.loras / "combined").glob(f"{len(files)}_*")
        assert prompt.encode() in path.read_bytes()
        files.append(load_file(path))
    assert all((files[0][name] == files[1][name]).all() for name in files[0])
    lora = add_save(graph, ["merge", 0], "combined/lora", name="lora")
    server.run(lora)
    assert b'"modelspec.trigger_phrase":"a sks dog, wtrclr"' in (
        server.loras / saved_name(server, "combined/lora")
    ).read_bytes().replace(b'": "', b'":"')


@pytest.mark.parametrize("change", ["cycle", "steps", "learning_rate", "memory"])
def test_whatever_else_changes_trains_again(server: ComfyServer, narrow: str, change: str) -> None:
    cycle, steps, options = (0.01 if change == "cycle" else 0.0), STEPS, {"resume": True}
    ran(server, merging(narrow, "one", 502, cycle_weight=cycle, options=options))
    steps += change == "steps"
    options |= {"learning_rate": {"learning_rate": 0.02}, "memory": {"micro_batch": 1}}.get(change, {})
    graph = merging(narrow, "other", 502, cycle_weight=cycle, steps=steps, options=options)
    said, shown = ran(server, graph)
    assert shown == list(range(1, steps + 1)) and NOT_AGAIN not in said


@pytest.mark.usefixtures("nothing_kept")
def test_a_stopped_merge_goes_on_under_another_combined_prompt(server: ComfyServer, narrow: str) -> None:
    cancelled(server, merging(narrow, "one", 503, steps=300), steps=300, at=2)
    behind = reached(server)
    shown = cancelled(server, merging(narrow, "other", 503, steps=300), steps=300).shown
    assert shown[0] == behind + 1


def test_a_long_combined_prompt_needs_no_memory_without_the_cycle(server: ComfyServer, narrow: str) -> None:
    long = "a sks dog in wtrclr style, " + "dog " * 20_000
    plans: list[str] = []
    for seed, prompt in ((504, "a sks dog in wtrclr style"), (505, long)):
        said, _ = ran(server, merging(narrow, prompt, seed, steps=1))
        plans += PLAN.findall(said)
    assert len(plans) == 2 and len(set(plans)) == 1


@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_the_report_asks_for_trigger_words_where_they_count(server: ComfyServer, narrow: str, weight: float) -> None:
    graph = merging(narrow, "a green bicycle", 506, cycle_weight=weight, steps=1)
    graph["report"] = node("DuoLoRAMergeReport", merged=["merge", 0])
    graph["words"] = node("PreviewAny", source=["report", 1])
    texts = server.texts(server.run(graph, 600))
    for name in ("words", "info"):
        assert ("merge again" in texts[name][0]) == (weight > 0), name
    assert "has no word of the prompt of narrow_content.safetensors" in texts["info"][0]
