"""Several LoRAs in one merge, chained through the loaders: trained, applied, saved, masked, weighed, resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, text_to_image
from host.lora_samples import Layer, attention_linears, make_lora, text_layers
from host.merge_graphs import OPTIONS, add_save, apply_and_paint, models_only, painted, saved_name
from host.narrow import narrowed

NAMES = [f"several_{number}.safetensors" for number in range(8)]


@pytest.fixture(scope="module", autouse=True)
def several(server: ComfyServer, narrow: str, layers: list[Layer]) -> None:
    """Eight LoRAs for the narrow model, of different ranks, layers and formats, some with text encoder parts."""
    assert narrow
    some = narrowed(layers)
    for number, name in enumerate(NAMES):
        covered = some if number % 3 == 2 else attention_linears(some)
        text = text_layers() if number % 2 == 0 else None
        make_lora(server.loras / name, covered, rank=2 + number % 3, alpha=2, seed=number, te_layers=text)


def add_chain(graph: Graph, role: str, names: Sequence[str]) -> str:
    """Adds a loader for each file, each with those before it as its others; the last one's name."""
    before: list[object] = []
    for number, name in enumerate(names):
        chained = {"others": before} if before else {}
        loader = "DuoLoRALoadContent" if role == "content" else "DuoLoRALoadStyle"
        graph[f"{role}{number}"] = node(
            loader, lora_name=name, prompt=f"a photo of {role}{number}", strength=1.0, **chained
        )
        before = [f"{role}{number}", 0]
    return f"{role}{len(names) - 1}"


def merging(checkpoint: str, contents: Sequence[str], styles: Sequence[str], **inputs: object) -> Graph:
    graph = models_only(checkpoint)
    graph["options"] = node("DuoLoRAMergeOptions", **OPTIONS)
    sides = {role: [add_chain(graph, role, names), 0] for role, names in (("content", contents), ("style", styles))}
    settings: dict[str, object] = {
        "combined_prompt": "",
        "steps": 4,
        "seed": 0,
        "resolution": 64,
        "layer_prior": "resolution",
        "layer_prior_weight": 0.1,
        "cycle_weight": 0.0,
    }
    graph["merge"] = node(
        "DuoLoRAZipRankMerge",
        model=["checkpoint", 0],
        clip=["clip", 0],
        options=["options", 0],
        **sides,
        **(settings | inputs),
    )
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return graph


@pytest.mark.parametrize(("contents", "styles"), [(1, 1), (2, 1), (1, 2), (5, 3)])
def test_apply_paints_what_the_saved_file_paints(server: ComfyServer, narrow: str, contents: int, styles: int) -> None:
    """The combined prompt has a line for each subject where the cycle learns from it."""
    prefix = f"several/{contents}_{styles}"
    lines = "\n".join(f"content{i} in style" for i in range(contents))
    graph = merging(
        narrow, NAMES[:contents], NAMES[contents : contents + styles], cycle_weight=0.1, combined_prompt=lines
    )
    graph = add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], prefix)
    picture = painted(server, graph, timeout=900)
    name = saved_name(server, prefix)
    file = text_to_image(narrow, [(name, 1.0)], positive="a sks dog in wtrclr style", size=64)
    assert int(np.abs(picture - painted(server, file)).max()) == 0
    plain = painted(server, text_to_image(narrow, positive="a sks dog in wtrclr style", size=64))
    assert np.abs(picture - plain).mean() > 1
    with safe_open(server.loras / name, framework="pt") as held:
        recipe = json.loads(held.metadata()["duolora_recipe"])
    assert [each["name"] for each in recipe["inputs"].values()] == NAMES[: contents + styles]
    assert recipe["combined_prompt"] == lines.replace("\n", "; ")


def test_masks_of_three_make_the_same_merge_and_know_each_lora(server: ComfyServer, narrow: str) -> None:
    graph = merging(narrow, NAMES[:2], NAMES[2:3])
    graph = add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], "several/three", what="masks only")
    picture = painted(server, graph, timeout=900)
    assert "content 2: several_1.safetensors" in server.texts(server.run(graph))["info"][0]
    (path,) = (server.loras / "several").glob("three_*")
    again = models_only(narrow)
    sides = {role: [add_chain(again, role, n), 0] for role, n in (("content", NAMES[:2]), ("style", NAMES[2:3]))}
    masks = path.relative_to(server.loras).as_posix()
    again["masks"] = node("DuoLoRALoadMasks", model=["checkpoint", 0], masks=masks, **sides)
    again = apply_and_paint(again, ["masks", 0])
    assert np.array_equal(painted(server, again), picture)
    swapped = dict(again)
    sides["content"] = [add_chain(swapped, "content", NAMES[1::-1]), 0]
    swapped["masks"] = node("DuoLoRALoadMasks", model=["checkpoint", 0], masks=masks, **sides)
    with pytest.raises(GraphFailed, match="Load that one"):
        server.run(swapped)


def test_each_lora_has_a_strength_of_its_own(server: ComfyServer, narrow: str) -> None:
    """All at 0 is the plain model; only the first at 1 is not the second; a strength of no LoRA is refused."""
    base = merging(narrow, NAMES[:2], NAMES[2:3])

    def weighed(**strengths: float) -> np.ndarray:
        graph = dict(base)
        every = {f"strength_{number}": 1.0 for number in range(1, 9)} | strengths
        graph["weigh"] = node("DuoLoRALoraStrengths", merged=["merge", 0], **every)
        return painted(server, apply_and_paint(graph, ["weigh", 0]), timeout=900)

    plain = painted(server, text_to_image(narrow, positive="a sks dog in wtrclr style", size=64))
    assert np.array_equal(weighed(strength_1=0.0, strength_2=0.0, strength_3=0.0), plain)
    assert np.array_equal(weighed(), painted(server, apply_and_paint(dict(base), ["merge", 0])))
    first, second = weighed(strength_2=0.0, strength_3=0.0), weighed(strength_1=0.0, strength_3=0.0)
    assert np.abs(first - second).mean() > 1
    with pytest.raises(GraphFailed, match="set strength_4 and those after it back to 1"):
        weighed(strength_5=0.5)


@pytest.mark.parametrize("method", ["stack", "average", "SSR-Merge router"])
def test_baselines_of_any_number(server: ComfyServer, narrow: str, method: str) -> None:
    """Stacking three is three LoRA loaders of core."""
    graph = models_only(narrow)
    sides = {role: [add_chain(graph, role, n), 0] for role, n in (("content", NAMES[:2]), ("style", NAMES[3:4]))}
    graph["merge"] = node(
        "DuoLoRABaselineMerge",
        model=["checkpoint", 0],
        clip=["clip", 0],
        method=method,
        content_strength=1.0,
        style_strength=1.0,
        seed=0,
        steps=1,
        resolution=64,
        **sides,
    )
    loaders = text_to_image(narrow, [(name, 1.0) for name in (*NAMES[:2], NAMES[3])], positive="a dog", size=64)
    painting = text_to_image("", positive="a dog", size=64)
    graph |= {name: each for name, each in painting.items() if name not in ("checkpoint", "clip")}
    graph["sampler"]["inputs"]["model"] = ["merge", 0]
    for prompt in ("positive", "negative"):
        graph[prompt]["inputs"]["clip"] = ["merge", 1]
    off = int(np.abs(painted(server, graph) - painted(server, loaders)).max())
    assert off <= 2 if method == "stack" else off > 5


def test_what_takes_two_refuses_three(server: ComfyServer, narrow: str) -> None:
    graph = models_only(narrow)
    sides = {role: [add_chain(graph, role, n), 0] for role, n in (("content", NAMES[:2]), ("style", NAMES[2:3]))}
    settings = {"content_strength": 1.0, "style_strength": 1.0, "seed": 0, "steps": 1, "resolution": 64}
    graph["merge"] = node("DuoLoRABaselineMerge", model=["checkpoint", 0], method="TIES", **settings, **sides)
    graph["info"] = node("PreviewAny", source=["merge", 4])
    with pytest.raises(GraphFailed, match="TIES merges one content and one style LoRA, but 2 and 1 are connected"):
        server.run(graph)


def test_lines_of_the_combined_prompt_are_one_for_each_subject(server: ComfyServer, narrow: str) -> None:
    graph = merging(narrow, NAMES[:3], NAMES[3:4], combined_prompt="one\ntwo")
    with pytest.raises(GraphFailed, match="2 lines for 3 content LoRAs"):
        server.run(graph)


def test_a_style_among_the_subjects_is_refused(server: ComfyServer, narrow: str) -> None:
    graph = merging(narrow, NAMES[:2], NAMES[2:3])
    graph["content1"]["inputs"]["others"] = ["style0", 0]
    with pytest.raises(GraphFailed, match="A style LoRA is connected to others"):
        server.run(graph)


def test_a_stack_of_other_packs_is_a_chain(server: ComfyServer, narrow: str) -> None:
    """Three entries, a prompt line for each; the file is that of three chained loaders at the same strengths."""
    files: list[dict[str, torch.Tensor]] = []
    for way in ("chain", "stack"):
        graph = merging(narrow, NAMES[:3], NAMES[3:4])
        if way == "stack":
            entries = json.dumps([["None", 1, 1], *([name, 1.0, 1.0] for name in NAMES[:3])])
            graph = {name: each for name, each in graph.items() if not name.startswith("content")}
            graph["stacker"] = node("DuoLoRATestLoraStack", entries=entries)
            graph["content"] = node(
                "DuoLoRALoadContent",
                lora_name="(connected LORA_STACK)",
                prompt="\n".join(f"a photo of content{number}" for number in range(3)),
                strength=1.0,
                lora_stack=["stacker", 0],
            )
            graph["merge"]["inputs"]["content"] = ["content", 0]
        graph = add_save(graph, ["merge", 0], f"several/{way}")
        server.run(graph, 900)
        tensors = load_file(server.loras / saved_name(server, f"several/{way}"))
        files.append({key: tensors[key] for key in sorted(tensors)})
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())
