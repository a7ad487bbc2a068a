"""Memory in real ComfyUI: the plan is told, and a merge that runs out of memory goes on to the same masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, zipped
from host.merge_graphs import add_merge, add_save, give_pictures, model_state, models_only
from host.narrow import CONTENT, STYLE

AS_SET: dict[str, Any] = {"memory_plan": "as set here"}


def merged(
    server: ComfyServer, narrow: str, prefix: str, failures: int = 0, **options: Any
) -> tuple[dict[str, torch.Tensor], str]:
    """The masks of a merge of two steps, saved under a prefix, and its info text."""
    server.run(graph := scarce_graph(server, narrow, prefix, failures, **options), 300)
    (path,) = (server.loras / "memory").glob(f"{prefix}_*.masks.safetensors")
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return load_file(path), server.texts(server.run(graph, 300))["info"][0]


def scarce_graph(server: ComfyServer, narrow: str, prefix: str, failures: int, **options: Any) -> Graph:
    graph = models_only(narrow)
    graph["scarce"] = node("DuoLoRATestScarceMemory", model=["checkpoint", 0], failures=failures)
    add_merge(graph, CONTENT, STYLE, seed=81, model=["scarce", 0], options=options)
    return add_save(give_same_pictures(server, graph), ["merge", 0], f"memory/{prefix}", what="masks only")


def give_same_pictures(server: ComfyServer, graph: Graph) -> Graph:
    """Pictures of one size, so that both students of a step share a forward."""
    give_pictures(server, graph)
    graph["merge.style"]["inputs"]["pictures"] = ["content", 0]
    del graph["style"]
    return graph


@pytest.mark.parametrize(
    ("failures", "reached", "options"),
    [
        (1, "micro-batch 1 without gradient checkpointing", {"micro_batch": 1, "gradient_checkpointing": False}),
        (
            2,
            "micro-batch 4 with gradient checkpointing at full and half resolution",
            {"micro_batch": 4, "gradient_checkpointing": True},
        ),
    ],
)
def test_running_out_of_memory_costs_nothing_but_the_plan(
    server: ComfyServer, narrow: str, failures: int, reached: str, options: dict[str, Any]
) -> None:
    """The masks are those of a merge that was set to the smaller plan, but for rounding; the model stays as it was.

    The teachers of the step in which memory ran out were asked in a larger batch, and a batch of another size rounds
    otherwise. With the same micro-batch all is equal bit for bit.
    """
    before = model_state(server, narrow)
    expected, told = merged(server, narrow, f"set{failures}", **options, **AS_SET)
    assert f"\n{reached.partition(' at ')[0]}: about " in told and "ran out" not in told
    found, told = merged(server, narrow, f"scarce{failures}", failures)
    assert "\nmicro-batch 4 without gradient checkpointing: about " in told
    assert told.count("memory ran out") == failures and f"went on from the same step with {reached}" in told
    assert found.keys() == expected.keys()
    furthest = max(float((found[name] - expected[name]).abs().max()) for name in expected)
    assert furthest <= (1e-4 if options["micro_batch"] == 1 else 0)
    assert model_state(server, narrow) == before


def test_with_no_plan_left_the_mends_are_named(server: ComfyServer, narrow: str) -> None:
    graph = scarce_graph(server, narrow, "none", failures=1000)
    with pytest.raises(GraphFailed, match=r"even with micro-batch 1 with gradient checkpointing\. Lower"):
        server.run(graph, 300)


def test_the_plan_is_part_of_the_info_of_zip_lora_too(server: ComfyServer, narrow: str) -> None:
    graph = zipped(give_same_pictures(server, add_merge(models_only(narrow), CONTENT, STYLE, steps=1)))
    info = server.texts(server.run(graph, 300))["info"][0]
    assert "\nmicro-batch 4 without gradient checkpointing: about " in info
