"""Trainings that stop and go on: after Cancel, and after the whole server was killed; the masks are the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from host.cancelling import cancelled, steps_shown
from host.comfy_host import ComfyServer
from host.conftest import HERE, ROOT
from host.graphs import NARROW, Graph, node, text_to_image
from host.hosts import Host
from host.lora_samples import Layer, attention_linears, make_lora
from host.merge_graphs import add_merge, add_save, give_pictures, models_only
from host.narrow import CONTENT, STYLE, make_narrow_loras, narrowed
from host.test_baselines import baseline

STEPS = 24
POOL = {"pool": 4, "timesteps": "stratified"}


def unfinished(server: ComfyServer) -> list[Path]:
    return sorted((server.base / "user" / "__duolora" / "unfinished").glob("*.safetensors"))


def newest(server: ComfyServer) -> Path:
    return max(unfinished(server), key=lambda path: path.stat().st_mtime_ns)


def reached(server: ComfyServer) -> int:
    """The steps that the training which stopped last has behind it; the page need not have been told of the last."""
    with safe_open(newest(server), "numpy") as file:
        return json.loads(file.metadata()["duolora_unfinished"])["step"]


@pytest.fixture
def nothing_kept(server: ComfyServer) -> Iterator[None]:
    """Before and after: other tests cancel trainings, too."""
    for path in unfinished(server):
        path.unlink()
    yield
    for path in unfinished(server):
        path.unlink()


def merging(checkpoint: str, steps: int = STEPS, **settings: Any) -> Graph:
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, steps=steps, **settings)
    graph["info"] = node("PreviewAny", source=["merge", 3])
    return graph


def masks(server: ComfyServer, graph: Graph, prefix: str) -> tuple[bytes, str, list[int]]:
    """Lets a merge run to its end: the masks file, what the merge node said, and the steps that were shown."""
    graph = add_save(dict(graph), ["merge", 0], prefix, what="masks only")
    with server.events() as stream:
        prompt_id = server.queue(graph)
        said = server.texts(server.wait(prompt_id, 600))["info"][0]
        stream.wait_until_finished(prompt_id)
        shown = steps_shown(stream, prompt_id, "merge", STEPS)
        sampled = any(each["node"] == "merge" and each["max"] == 2 for each in stream.of(prompt_id, "progress"))
    assert sampled == (shown[0] == 1 and "content" not in graph)  # its own pictures are not sampled a second time
    (path,) = server.loras.glob(f"{prefix}_*")
    return path.read_bytes(), said, shown


def without_going_on(graph: Graph) -> Graph:
    """The same training, from its first step and without a stop."""
    options = graph["merge.options"]
    return graph | {"merge.options": options | {"inputs": options["inputs"] | {"resume": False}}}


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("kind", ["exact", "pool"])
def test_after_cancel_the_same_graph_goes_on(server: ComfyServer, narrow: str, kind: str) -> None:
    """Twice stopped, with another LoRA patched into the model meanwhile: byte for byte the masks of no stop at all."""
    graph = merging(narrow, seed=201, options=POOL if kind == "pool" else {})
    if kind == "exact":
        give_pictures(server, graph)
    first = cancelled(server, graph, steps=STEPS, at=2).shown
    assert first[0] == 1 and len(unfinished(server)) == 1 and reached(server) == first[-1]
    server.run(text_to_image(narrow, [(CONTENT, 1.0)], size=64))
    behind = reached(server)
    assert cancelled(server, graph, steps=STEPS, at=2).shown[0] == behind + 1
    behind = reached(server)
    content, said, shown = masks(server, graph, f"going/{kind}")
    assert shown == list(range(behind + 1, STEPS + 1))
    assert f"resumed after step {behind}" in said
    assert f"{STEPS} steps, {STEPS - behind} of them now" in said
    assert unfinished(server) == []
    uninterrupted, said, shown = masks(server, without_going_on(graph), f"going/whole_{kind}")
    assert "went on" not in said and shown == list(range(1, STEPS + 1))
    assert content == uninterrupted


@pytest.mark.usefixtures("nothing_kept")
def test_zip_lora_goes_on_too(server: ComfyServer, narrow: str) -> None:
    graph = add_merge(models_only(narrow), CONTENT, STYLE, name="pair")
    graph["merge"] = baseline("ZipLoRA", steps=STEPS, seed=202, options=["pair.options", 0])
    graph["info"] = node("PreviewAny", source=["merge", 4])
    save = "SaveLoRA" if server.object_info("SaveLoRA") else "SaveLoRANode"

    def saved(prefix: str, resume: bool) -> tuple[bytes, str]:
        graph["file"] = node(save, lora=["merge", 2], prefix=f"loras/{prefix}")
        graph["pair.options"]["inputs"]["resume"] = resume
        said = server.texts(server.run(graph, 600))["info"][0]
        (file,) = (server.base / "output" / "loras").glob(f"{prefix}_*.safetensors")
        return file.read_bytes(), said

    del graph["pair"]
    graph["pair.options"]["inputs"]["resume"] = True
    cancelled(server, graph, steps=STEPS, at=2)
    behind = reached(server)
    gone_on, said = saved("zip_going", True)
    assert f"resumed after step {behind}" in said
    whole, said = saved("zip_whole", False)
    assert "went on" not in said
    assert gone_on == whole
    assert unfinished(server) == []


@pytest.mark.usefixtures("nothing_kept")
def test_whatever_decides_the_result_starts_afresh(server: ComfyServer, narrow: str, layers: list[Layer]) -> None:
    """The seed, a prompt, a picture, a setting, a patch on the model; memory settings do not, and go on."""
    make_lora(server.loras / "below.safetensors", attention_linears(narrowed(layers)), seed=9)

    def graph(**options: Any) -> Graph:
        return give_pictures(server, merging(narrow, steps=500, seed=203, options=options))

    cancelled(server, graph(), steps=500)
    behind = reached(server)
    changed: dict[str, Graph] = {}
    for name in ("seed", "combined_prompt", "cycle_weight"):
        changed[name] = graph()
        changed[name]["merge"]["inputs"][name] = {"seed": 204, "combined_prompt": "x", "cycle_weight": 0.02}[name]
    changed["prompt"] = graph()
    changed["prompt"]["merge.style"]["inputs"]["prompt"] += ", blue"
    changed["picture"] = graph()
    changed["picture"]["merge.style"]["inputs"]["pictures"] = ["content", 0]
    changed["below"] = graph()
    changed["below"]["up"] = node(
        "LoraLoaderModelOnly", model=["checkpoint", 0], lora_name="below.safetensors", strength_model=0.5
    )
    changed["below"]["merge"]["inputs"]["model"] = ["up", 0]
    changed["sampling"] = graph()
    changed["sampling"]["up"] = node(
        "ModelSamplingDiscrete", model=["checkpoint", 0], sampling="v_prediction", zsnr=False
    )
    changed["sampling"]["merge"]["inputs"]["model"] = ["up", 0]
    for name, other in changed.items():
        assert cancelled(server, other, steps=500).shown[0] == 1, name
    assert cancelled(server, graph(micro_batch=2), steps=500).shown[0] == behind + 1
    assert len(unfinished(server)) == 8


@pytest.mark.usefixtures("nothing_kept")
def test_a_damaged_state_is_told_and_not_used_and_old_ones_go(server: ComfyServer, narrow: str) -> None:
    graph = merging(narrow, seed=205, options=POOL)
    folder = server.base / "user" / "__duolora" / "unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    old = [folder / f"{i:064}.safetensors" for i in range(9)]
    for i, path in enumerate(old):
        path.write_bytes(b"old")
        os.utime(path, (i, i))
    cancelled(server, graph, steps=STEPS)
    path = newest(server)
    kept = [each for each in unfinished(server) if each != path]
    assert kept == old[2:]
    path.write_bytes(path.read_bytes()[:-1])
    _, said, shown = masks(server, graph, "going/damaged")
    assert shown == list(range(1, STEPS + 1))
    assert f"started from the first step: {path.name} cannot be resumed from" in said
    assert unfinished(server) == kept


def test_after_a_killed_server_the_same_graph_goes_on(host: Host, checkpoint_file: Path, layers: list[Layer]) -> None:
    """SIGKILL in mid-training, a new server: the same masks as without; and a merge saved by both is the same file."""
    steps = 60  # many times the second that passes before the state is written first
    with ComfyServer(host, pack_root=ROOT, fixtures_pack=HERE / "fixtures_pack") as server:
        (server.checkpoints / NARROW).symlink_to(checkpoint_file)
        make_narrow_loras(server.loras, layers)
        graph = merging(NARROW, steps, seed=206, cycle_weight=0.0, options=POOL)
        short = merging(NARROW, 2, seed=207)
        server.run(add_save(short, ["merge", 0], "one/merged"), 300)
        with server.events() as stream:
            prompt_id = server.queue(graph)
            stream.wait_for(
                lambda stream: bool(unfinished(server)) and len(steps_shown(stream, prompt_id, "merge", steps)) > 2,
                timeout=300,
            )
            server.crash()
            assert steps_shown(stream, prompt_id, "merge", steps)[-1] < steps
        server.start_again()
        server.run(add_save(short, ["merge", 0], "other/merged"), 300)
        one, other = (server.loras / folder / "merged_00001.safetensors" for folder in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()
        files: list[bytes] = []
        for name, each in (("gone_on", graph), ("whole", without_going_on(graph))):
            history = server.run(add_save(dict(each), ["merge", 0], name, what="masks only"), 600)
            said = server.texts(history)["info"][0]
            assert ("resumed after step" in said) == (name == "gone_on")
            (path,) = server.loras.glob(f"{name}_*")
            files.append(path.read_bytes())
        assert files[0] == files[1]
        assert unfinished(server) == []
