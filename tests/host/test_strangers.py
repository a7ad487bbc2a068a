"""Nobody let in, in a running ComfyUI: a merge does nothing to the outside, and a stranger's file ends no server."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import node
from host.merge_graphs import add_loaders, add_masks, add_merge, add_save, models_only, saved_name
from host.narrow import CONTENT, STYLE


def watch(server: ComfyServer, on: bool) -> list[str]:
    """Switches the watch, and says what it has found."""
    graph = {"watch": node("DuoLoRATestWatch", on=on, folder=str(server.base))}
    found: list[str] = json.loads(server.texts(server.run(graph))["watch"][0])
    return found


def test_a_merge_reaches_nothing_outside(server: ComfyServer, narrow: str) -> None:
    """Training, report, a saved LoRA, saved masks and their merge made again: by the process's own audit events."""
    first = add_merge(models_only(narrow), CONTENT, STYLE, seed=600)
    first["info"] = node("PreviewAny", source=["merge", 3])
    server.run(first, 300)  # PyTorch sets itself up at the first training
    watch(server, on=True)
    graph = add_merge(models_only(narrow), CONTENT, STYLE, seed=601, options={"sample_every": 1})
    graph = add_save(graph, ["merge", 0], "watched/merged")
    graph["report"] = node("DuoLoRAMergeReport", merged=["merge", 0])
    server.run(graph, 300)
    server.run(add_save(graph, ["merge", 0], "watched/masks", what="masks only"), 300)
    (masks,) = server.loras.glob("watched/masks_*")
    again = add_loaders(models_only(narrow), CONTENT, STYLE, "merge")
    add_masks(again, masks.relative_to(server.loras).as_posix(), "merge")
    again["report"] = node("DuoLoRAMergeReport", merged=["masks", 0])
    server.run(again, 300)
    assert watch(server, on=False) == []
    assert (server.loras / saved_name(server, "watched/merged")).is_file()


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pickle", "pickles can run code"),
        ("pipe", "is not in the loras folders"),  # the host itself sees no file there
    ],
)
def test_a_strangers_file_is_refused_and_the_server_goes_on(
    server: ComfyServer, kind: str, words: str, tmp_path: Path
) -> None:
    path = server.loras / f"stranger_{kind}.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(pickle.dumps({"a": Evil(tmp_path / "unpickled")}))
    server.object_info("DuoLoRALoadContent")  # the host looks at the folder again
    graph = {"load": node("DuoLoRALoadContent", lora_name=path.name, prompt="a dog", strength=1.0)}
    graph["show"] = node("PreviewAny", source=["load", 1])
    try:
        with pytest.raises(GraphFailed) as caught:
            server.run(graph)
        assert words in caught.value.exception_message and path.name in caught.value.exception_message
        assert not (tmp_path / "unpickled").exists()
        graph["load"]["inputs"]["lora_name"] = CONTENT
        assert "layers" in server.texts(server.run(graph))["show"][0]
    finally:
        path.unlink()
