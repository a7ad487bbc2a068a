"""What runs again when a graph is queued again: all that has changed, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.lora_samples import Layer, attention_linears, make_lora
from host.merge_graphs import add_masks, add_merge, add_save, executed, give_pictures, models_only
from host.narrow import STYLE, narrowed
from host.test_baselines import baseline

SUBJECT = "cache_subject.safetensors"


@pytest.fixture
def subject(server: ComfyServer, layers: list[Layer]) -> Callable[[int], Path]:
    """Writes the content LoRA: another seed is another content of the same name, size and modification time."""

    def write(seed: int) -> Path:
        path = server.loras / SUBJECT
        make_lora(path, attention_linears(narrowed(layers))[:4], rank=2, seed=seed)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        return path

    return write


def graph_of_all(server: ComfyServer, checkpoint: str) -> Graph:
    """Pictures, both LoRAs, options, ZipRank Merge, ZipLoRA and a save."""
    graph = add_merge(models_only(checkpoint), SUBJECT, STYLE, steps=1, seed=301, options={"pool": 0})
    give_pictures(server, graph)
    options, vae = ["merge.options", 0], ["checkpoint", 2]
    graph["zip"] = baseline("ZipLoRA", steps=1, options=options, vae=vae)
    for role in ("content", "style"):
        graph["zip"]["inputs"][role] = [f"merge.{role}", 0]
    graph["zip.info"] = node("PreviewAny", source=["zip", 4])
    return add_save(graph, ["merge", 0], "cache/merged")


def change(graph: Graph, name: str, **inputs: object) -> None:
    graph[name]["inputs"] |= inputs


def test_any_change_runs_again_and_no_change_does_not(
    server: ComfyServer, narrow: str, subject: Callable[[int], Path]
) -> None:
    subject(1)
    graph = graph_of_all(server, narrow)
    size = (server.loras / SUBJECT).stat().st_size

    def repaint() -> None:
        pixels = np.random.default_rng(5).integers(0, 255, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(server.base / "input" / "style.png")

    both, saves = {"merge", "zip"}, {"saved"}
    changes: dict[str, tuple[Callable[[], object], set[str], set[str]]] = {  # what, what runs then, what does not
        "the file's content": (lambda: subject(2), both | saves, set()),
        "a picture's content": (repaint, both | saves, set()),
        "a prompt": (lambda: change(graph, "merge.style", prompt="an etching in wtrclr style"), both | saves, set()),
        "a strength": (lambda: change(graph, "merge.content", strength=0.9), both | saves, set()),
        "the combined prompt": (
            lambda: change(graph, "merge", combined_prompt="a sks dog"),
            {"merge"} | saves,
            {"zip"},
        ),
        "the seed": (lambda: change(graph, "merge", seed=302), {"merge"} | saves, {"zip"}),
        "the seed of the other": (lambda: change(graph, "zip", seed=303), {"zip"}, {"merge"} | saves),
        "an option": (lambda: change(graph, "merge.options", learning_rate=0.02), both | saves, set()),
        "an option of late": (lambda: change(graph, "merge.options", timesteps="stratified"), both | saves, set()),
        "the precision of the file": (lambda: change(graph, "saved", precision="bf16"), saves, both),
    }
    assert both | saves <= executed(server.run(graph, 600))
    for what, (make, again, not_again) in changes.items():
        assert not executed(server.run(graph, 600)) & (both | saves), f"before {what}"
        make()
        ran = executed(server.run(graph, 600))
        assert again <= ran and not not_again & ran, what
    assert (server.loras / SUBJECT).stat().st_size == size


def test_masks_are_read_again_when_the_file_has_changed(
    server: ComfyServer, narrow: str, subject: Callable[[int], Path]
) -> None:
    """Exchanged by others of the same name, size and time."""
    subject(1)
    graph = add_merge(models_only(narrow), SUBJECT, STYLE, steps=1, seed=304)
    for name, rate in (("one", 0.01), ("other", 0.05)):
        change(graph, "merge.options", learning_rate=rate)
        server.run(add_save(graph, ["merge", 0], f"cache/{name}", what="masks only"), 600)
    one, other = (server.loras / "cache" / f"{name}_00001.masks.safetensors" for name in ("one", "other"))
    loading = {name: graph[name] for name in ("checkpoint", "clip", "merge.content", "merge.style")}
    add_masks(loading, "cache/one_00001.masks.safetensors", "merge")
    loading["report"] = node("DuoLoRAMergeReport", merged=["masks", 0])
    assert "masks" in executed(server.run(loading))
    assert "masks" not in executed(server.run(loading))
    times = one.stat()
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert one.stat().st_size == times.st_size
    assert "masks" in executed(server.run(loading))
    assert "masks" not in executed(server.run(loading))
