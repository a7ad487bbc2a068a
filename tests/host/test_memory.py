"""Memory in real ComfyUI: the plan is told, and a merge that runs out of memory goes on to the same masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node
from host.hosts import Host
from host.merge_graphs import CONTENT, STYLE, add_merge, add_save, give_pictures, model_state, models_only

pytestmark = pytest.mark.usefixtures("loras")

AS_SET: dict[str, Any] = {"memory_plan": "as set here"}


def merged(
    server: ComfyServer, checkpoint: str, prefix: str, failures: int = 0, **options: Any
) -> tuple[dict[str, torch.Tensor], str]:
    """The masks of a merge of two steps, saved under a prefix, and its info text."""
    server.run(graph := scarce_graph(server, checkpoint, prefix, failures, **options), 300)
    (path,) = (server.loras / "memory").glob(f"{prefix}_*.masks.safetensors")
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return load_file(path), server.texts(server.run(graph, 300))["info"][0]


def scarce_graph(server: ComfyServer, checkpoint: str, prefix: str, failures: int, **options: Any) -> Graph:
    graph = models_only(checkpoint)
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
    server: ComfyServer, checkpoint: str, failures: int, reached: str, options: dict[str, Any]
) -> None:
    """The masks are those of a merge that was set to the smaller plan, but for rounding; the model stays as it was.

    The teachers of the step in which memory ran out were asked in a larger batch, and a batch of another size rounds
    otherwise. With the same micro-batch all is equal bit for bit.
    """
    before = model_state(server, checkpoint)
    expected, told = merged(server, checkpoint, f"set{failures}", **options, **AS_SET)
    assert f"\n{reached.partition(' at ')[0]}: about " in told and "ran out" not in told
    found, told = merged(server, checkpoint, f"scarce{failures}", failures)
    assert "\nmicro-batch 4 without gradient checkpointing: about " in told
    assert told.count("memory ran out") == failures and f"went on from the same step with {reached}" in told
    assert found.keys() == expected.keys()
    furthest = max(float((found[name] - expected[name]).abs().max()) for name in expected)
    assert furthest <= (1e-4 if options["micro_batch"] == 1 else 0)
    assert model_state(server, checkpoint) == before


def test_with_no_plan_left_the_mends_are_named(server: ComfyServer, checkpoint: str) -> None:
    graph = scarce_graph(server, checkpoint, "none", failures=1000)
    with pytest.raises(GraphFailed, match=r"even with micro-batch 1 with gradient checkpointing\. Lower"):
        server.run(graph, 300)


def test_the_plan_is_part_of_the_info_of_zip_lora_too(server: ComfyServer, checkpoint: str) -> None:
    graph = give_same_pictures(server, add_merge(models_only(checkpoint), CONTENT, STYLE))
    graph["merge"] = node(
        "DuoLoRABaselineMerge",
        **{name: graph["merge"]["inputs"][name] for name in ("model", "clip", "vae", "content", "style", "options")},
        method="ZipLoRA",
        content_strength=1.0,
        style_strength=1.0,
        seed=1,
        steps=1,
        resolution=64,
    )
    graph["info"] = node("PreviewAny", source=["merge", 4])
    info = server.texts(server.run(graph, 300))["info"][0]
    assert "\nmicro-batch 4 without gradient checkpointing: about " in info


@pytest.fixture(scope="module")
def inside(host: Host) -> dict[str, Any]:
    """What the script finds that runs in the host's own python."""
    script = Path(__file__).resolve().parent / "memory_inside.py"
    printed = host.run_script(script, "--host", host.path, "--pack", script.parents[2])
    answer: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return answer


@pytest.mark.parametrize("checkpointing", ["none", "full and half resolution", "all"])
def test_the_estimate_holds_for_the_hosts_own_unet(inside: dict[str, Any], checkpointing: str) -> None:
    """SDXL at 512 px on the meta device, with the pack's own checkpointing."""
    assert 0.95 < inside["estimate_over_measured"][checkpointing] < 1.15


def test_what_the_artist_set_is_fitted_and_told_before_it_begins(inside: dict[str, Any]) -> None:
    """The micro-batch is a bound, and gives way; no checkpointing stays, and too little memory is said in time."""
    enough, less, too_little = inside["as_set"]
    assert enough["plan"] == "micro-batch 2 without gradient checkpointing"
    assert less["plan"] == too_little["plan"] == "micro-batch 1 without gradient checkpointing"
    assert enough["said"] == less["said"] == [] and "may not be enough" not in less["notes"][0]
    assert too_little["said"] == too_little["notes"] and too_little["notes"][0].endswith("this may not be enough")


def test_where_no_fused_attention_exists_scores_are_counted(inside: dict[str, Any]) -> None:
    """In float32 unless PyTorch was told that half precision will do, as the host does where it can."""
    scores = inside["scores"]
    assert scores["cpu"] is None and scores["nvidia"] is None
    assert scores["half"] == {"mps": [64, 2], "amd": [64, 2]}
    assert scores["float32"] == {"mps": [64, 4], "amd": [64, 4]}


def test_a_graphics_cards_libraries_keep_some_memory_for_themselves(inside: dict[str, Any]) -> None:
    assert inside["workspaces"] == {"cpu": 0, "mps": 0, "cuda": 256 * 2**20}


def test_arithmetic_is_the_models_own_and_is_put_back(inside: dict[str, Any]) -> None:
    """Under somebody's autocast the model still computes in its own dtype; TF32 serves float32 alone."""
    assert inside["precision"] == {"fp32": ["float32", True], "fp16": ["float32", False], "after": ["bfloat16", False]}


def test_states_in_which_a_model_cannot_be_trained_are_told(inside: dict[str, Any]) -> None:
    assert "weight is on cpu instead of meta" in inside["not_whole"] and "--novram" in inside["not_whole"]
    assert "quantised: layer to_q" in inside["quantised"] and "fp8_e4m3fn" in inside["quantised"]
    assert list(inside["out_of_memory"].values()) == [True, False, True]
