"""An artist's way through the page: Run, the live picture, Cancel, an error, help, tooltips in another language."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from benchmarks.shapes_world.cases import case_of
from benchmarks.shapes_world.concepts import lora_path
from browser.comfy_page import ComfyPage
from host.comfy_host import ComfyServer, GraphInterrupted
from host.graphs import Graph, node
from host.merge_graphs import add_merge
from host.small_world import add_checkpoint
from host.world_graphs import SIDE

CHECKPOINT, CONTENT, STYLE, BROKEN = (f"{name}.safetensors" for name in ("world", "subject", "look", "broken"))
MERGE, LOAD_STYLE = "DuoLoRAZipRankMerge", "DuoLoRALoadStyle"


@pytest.fixture(scope="module", autouse=True)
def files(server: ComfyServer) -> None:
    """The world, two LoRAs, and one that the download cut short."""
    add_checkpoint(server, CHECKPOINT)
    case = case_of("sks2+zwx2")
    shutil.copyfile(lora_path("content", case.content), server.loras / CONTENT)
    shutil.copyfile(lora_path("style", case.style), server.loras / STYLE)
    (server.loras / BROKEN).write_bytes((server.loras / STYLE).read_bytes()[:1000])


def merge_graph(steps: int = 3, seed: int = 0) -> Graph:
    """Two LoRAs merged, and the words about it shown."""
    graph = {"checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}
    own = {"own_pictures": 1, "own_pictures_steps": 2, "sample_every": 2}
    clip = ["checkpoint", 1]
    add_merge(graph, CONTENT, STYLE, clip=clip, steps=steps, seed=seed, resolution=SIDE, options=own)
    graph["info"] = node("PreviewAny", source=["merge", 3])
    numbers = {name: str(number) for number, name in enumerate(graph, start=1)}  # as the page numbers nodes

    def numbered(value: object) -> object:
        return [numbers[str(value[0])], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: node(given["class_type"], **{key: numbered(value) for key, value in given["inputs"].items()})
        for name, given in graph.items()
    }


def test_run_shows_a_live_picture_and_cancel_frees_the_server(comfy: ComfyPage) -> None:
    """All by clicking; afterwards a graph runs to its end."""
    comfy.load_api(merge_graph(steps=5000))
    merge = comfy.node_of(MERGE)
    comfy.look_at(merge)
    before = comfy.whiteness(merge)
    prompt_id = comfy.run()
    comfy.wait_for_preview(merge)
    assert comfy.whiteness(merge) > before + 0.1

    comfy.cancel()
    with pytest.raises(GraphInterrupted):
        comfy.server.wait(prompt_id)
    comfy.wait_until_idle()

    comfy.load_api(merge_graph())
    history = comfy.server.wait(comfy.run())
    (info,) = comfy.server.texts(history).values()
    assert info[0].startswith("3 steps in")


def test_a_broken_lora_is_told_where_the_artist_looks(comfy: ComfyPage) -> None:
    """The page names the node, and shows our message with what to do."""
    comfy.load_api(merge_graph(seed=1))
    style = comfy.node_of(LOAD_STYLE)
    comfy.set_inputs({style: node(LOAD_STYLE, lora_name=BROKEN)})
    comfy.run()
    details = comfy.page.get_by_role("button", name="View details").first
    message = comfy.page.get_by_text(f"{BROKEN} is not a readable safetensors file")
    expect(details.or_(message).first).to_be_visible()
    if details.is_visible():  # newer pages show the message one click further
        details.click()
    expect(message.first).to_be_visible()
    expect(comfy.page.get_by_text("Download it again").first).to_be_visible()


@pytest.mark.parametrize("node_type", [MERGE, LOAD_STYLE])
def test_help_opens_beside_the_node(comfy: ComfyPage, node_type: str) -> None:
    """Our page with its headings and tables, rendered."""
    comfy.load_api(merge_graph())
    help_page = comfy.open_help(comfy.node_of(node_type))
    for heading in ("Inputs", "Outputs", "When something goes wrong"):
        expect(help_page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(help_page.get_by_role("cell", name="prompt").first).to_be_visible()


@pytest.fixture
def chinese(comfy: ComfyPage) -> Iterator[ComfyPage]:
    """The page after its language was switched; the setting is the server's, so it is switched back."""
    comfy.set_language("zh")
    yield comfy
    comfy.set_language("en")


def test_labels_and_tooltips_follow_the_language(chinese: ComfyPage) -> None:
    comfy = chinese
    comfy.load_api(merge_graph())
    merge = comfy.node_of(MERGE)
    comfy.look_at(merge)
    labels = comfy.labels(merge)
    assert labels["title"] == "ZipRank 融合"
    assert {"步数", "分辨率", "组合提示词"} <= set(labels["widgets"])
    assert {"模型", "内容", "风格"} <= set(labels["inputs"])
    assert labels["outputs"] == ["融合结果", "LoRA", "损失", "信息"]
    comfy.hover_widget(merge, "steps")
    expect(comfy.page.locator(".node-tooltip")).to_contain_text("训练步数")


def test_outputs_have_names_and_not_types(comfy: ComfyPage) -> None:
    comfy.load_api(merge_graph())
    assert comfy.labels(comfy.node_of(MERGE))["outputs"] == ["merged", "lora", "loss", "info"]
    assert comfy.labels(comfy.node_of(LOAD_STYLE))["outputs"] == ["style", "info"]
