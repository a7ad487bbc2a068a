"""Smoke tests of the harness itself: the tiny models run in the real host, and LoRAs load into them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from host.comfy_host import ComfyServer, GraphFailed, GraphInterrupted, GraphRejected
from host.graphs import Graph, node, text_to_image
from host.lora_samples import FORMATS, Layer, attention_linears, make_lora, text_layers

# What the hosts' own LoraLoader cannot name: plain diffusers and PEFT keys of attention layers.
LOADED_WHOLE = {"kohya_ldm", "kohya_diffusers", "processor", "lycoris", "generic"}


def picture(server: ComfyServer, graph: Graph) -> np.ndarray:
    """The one picture that the graph saves, as float."""
    return server.images(server.run(graph))["save"][0].astype(float)


def digest(server: ComfyServer, graph: Graph) -> dict[str, Any]:
    """The report of the graph's node "digest"."""
    report: dict[str, Any] = json.loads(server.texts(server.run(graph))["digest"][0])
    return report


def unloaded(log: str) -> list[str]:
    """The keys that the host says it did not load."""
    return [line for line in log.splitlines() if "lora key not loaded" in line]


def test_checkpoint_is_recognised_by_the_real_loader(server: ComfyServer, checkpoint: str) -> None:
    """The loader takes the file for a Segmind Vega that predicts noise; it reads it anew, whatever ran before."""
    server.free()
    graph = {"load": node("CheckpointLoaderSimple", ckpt_name=checkpoint)}
    graph["digest"] = node("DuoLoRATestModelDigest", model=["load", 0])
    report = digest(server, graph)
    assert (report["config_class"], report["model_type"]) == ("Segmind_Vega", "EPS")
    assert report["hooks"] == report["forward_overrides"] == report["with_grad"] == 0
    assert report["replaced"] == []


def test_v_prediction_checkpoint_is_recognised(server: ComfyServer, checkpoint_v: str) -> None:
    """The marker key makes it a v-prediction model; its pictures are sane as well."""
    graph = text_to_image(checkpoint_v)
    graph["digest"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0])
    history = server.run(graph)
    assert json.loads(server.texts(history)["digest"][0])["model_type"] == "V_PREDICTION"
    assert server.images(history)["save"][0].std() > 5


def test_picture_is_varied_and_repeatable(server: ComfyServer, checkpoint: str) -> None:
    """The same seed gives the same pixels even when sampled anew; another seed, prompt or text encoder does not."""
    first = picture(server, text_to_image(checkpoint))
    assert first.shape == (128, 128, 3)
    assert first.std() > 5
    picture(server, text_to_image(checkpoint, seed=2))  # pushes the first sample out of the cache
    server.free()
    again = picture(server, text_to_image(checkpoint, prefix="again"))
    assert np.array_equal(first, again)
    assert np.abs(first - picture(server, text_to_image(checkpoint, seed=2))).mean() > 5
    assert np.abs(first - picture(server, text_to_image(checkpoint, positive="a blue house"))).mean() > 1


def test_lora_changes_the_picture(server: ComfyServer, checkpoint: str, layers: list[Layer]) -> None:
    """A LoRA on UNet and text encoders loads whole and changes the picture, but does not destroy it."""
    make_lora(server.loras / "both.safetensors", attention_linears(layers), te_layers=text_layers(), alpha=2.0)
    plain = picture(server, text_to_image(checkpoint))
    with server.log_of() as log:
        changed = picture(server, text_to_image(checkpoint, [("both.safetensors", 1.0)]))
    assert unloaded(log.getvalue()) == []
    assert 1 < np.abs(plain - changed).mean() < 60
    assert changed.std() > 5


@pytest.mark.parametrize("fmt", FORMATS)
def test_lora_formats(server: ComfyServer, checkpoint: str, layers: list[Layer], fmt: str) -> None:
    """Every sample file is a valid LoRA; the hosts know all its keys, or all but the known gaps."""
    chosen = attention_linears(layers) if fmt == "processor" else layers
    tensors = make_lora(server.loras / f"{fmt}.safetensors", chosen, fmt, alpha=2.0)
    with server.log_of() as log:
        changed = picture(server, text_to_image(checkpoint, [(f"{fmt}.safetensors", 1.0)], size=64))
    assert changed.std() > 1
    missing = unloaded(log.getvalue())
    assert bool(missing) == (fmt not in LOADED_WHOLE), missing[:5]
    assert len(missing) <= len(tensors)


def test_digest_sees_patches_and_their_removal(server: ComfyServer, checkpoint: str, layers: list[Layer]) -> None:
    """Loading a patched model changes the digest, loading the plain one restores it."""
    make_lora(server.loras / "digest.safetensors", attention_linears(layers))
    graph: Graph = {
        "load": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name="digest.safetensors", strength_model=1.0),
        "before": node("DuoLoRATestModelDigest", model=["load", 0], load=True),
        "patched": node("DuoLoRATestModelDigest", model=["lora", 0], load=True, after=["before", 0]),
        "restored": node("DuoLoRATestModelDigest", model=["load", 0], load=True, after=["patched", 0]),
    }
    texts = server.texts(server.run(graph))
    before, patched, restored = (json.loads(texts[name][0])["digest"] for name in ("before", "patched", "restored"))
    assert before == restored != patched


def test_rejected_failed_and_interrupted_graphs_raise(server: ComfyServer, checkpoint: str) -> None:
    """An unknown input is rejected with the node's errors, and an exception in a node carries its type and message."""
    with pytest.raises(GraphRejected) as rejected:
        server.run(text_to_image("no such file.safetensors"))
    assert "checkpoint" in rejected.value.node_errors
    broken = server.checkpoints / "broken.safetensors"
    broken.write_bytes(b"\0" * 16)
    with pytest.raises(GraphFailed) as failed:
        server.run(text_to_image(broken.name))
    assert failed.value.node_type == "CheckpointLoaderSimple"
    with server.events() as stream:
        prompt_id = server.queue(text_to_image(checkpoint, steps=200, seed=3))
        stream.wait_for_progress(prompt_id)
        server.interrupt()
        with pytest.raises(GraphInterrupted):
            server.wait(prompt_id)


def test_events_report_progress_and_previews(server: ComfyServer, checkpoint: str) -> None:
    """Every sampling step arrives as a progress message and as a preview frame."""
    with server.events() as stream:
        prompt_id = server.queue(text_to_image(checkpoint, seed=4))
        stream.wait_until_finished(prompt_id)
    server.wait(prompt_id)
    steps = [step["value"] for step in stream.of(prompt_id, "progress") if step["node"] == "sampler"]
    assert sorted(set(steps) - {0}) == [1, 2, 3, 4]
    assert len(stream.previews) == 4
