"""What a merge leaves alone: the model and what is patched into it, other folders, and work that is done already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from host.cancelling import cancelled
from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, text_to_image
from host.lora_samples import Layer, attention_linears, make_lora
from host.merge_graphs import (
    CONTENT,
    STYLE,
    add_merge,
    add_save,
    apply_and_paint,
    executed,
    give_pictures,
    model_state,
    models_only,
    painted,
    saved_name,
)

pytestmark = pytest.mark.usefixtures("loras")


def test_the_digest_sees_a_patch_and_its_removal(server: ComfyServer, checkpoint: str) -> None:
    """Loading a patched model changes the digest, loading the plain one restores it."""
    graph = models_only(checkpoint)
    graph["lora"] = node("LoraLoaderModelOnly", model=["checkpoint", 0], lora_name=CONTENT, strength_model=1.0)
    after: dict[str, list[object]] = {}
    for name, model in (("plain", "checkpoint"), ("patched", "lora"), ("restored", "checkpoint")):
        graph[name] = node("DuoLoRATestModelDigest", model=[model, 0], load=True, **after)
        after = {"after": [name, 0]}
    texts = server.texts(server.run(graph))
    plain, patched, restored = (json.loads(texts[name][0])["bytes"] for name in ("plain", "patched", "restored"))
    assert plain == restored != patched


def test_model_is_bit_identical_after_two_merges(server: ComfyServer, checkpoint: str) -> None:
    """Two merges one after the other in one server leave the same objects with the same bytes and nothing attached.

    With pictures given: to sample its own, the merge patches a LoRA in the host's way, which replaces tensors by equal
    ones.
    """
    before = model_state(server, checkpoint)
    for seed, checkpointing in ((21, False), (22, True)):
        options = {"gradient_checkpointing": checkpointing, "memory_plan": "as set here"}
        graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=seed, options=options)
        give_pictures(server, graph)
        graph["digest"] = node("DuoLoRATestModelDigest", model=["checkpoint", 0], load=True, after=["merge", 0])
        after = json.loads(server.texts(server.run(graph, 300))["digest"][0])
        assert after == before
        assert after["hooks"] == after["forward_overrides"] == after["with_grad"] == 0


def test_cancel_in_mid_training(server: ComfyServer, checkpoint: str) -> None:
    """Cancel works within a step, shows previews until then, leaves the model as it was and no file behind."""
    before = model_state(server, checkpoint)
    files = set(server.loras.rglob("*"))
    graph = give_pictures(server, add_merge(models_only(checkpoint), CONTENT, STYLE, steps=500, seed=31))
    graph = add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], "cancelled/merged")
    seen = cancelled(server, graph, steps=500, at=3)
    assert seen.shown[-1] <= seen.pressed + 2
    assert any(preview.size == (512, 512) for preview in seen.previews)
    assert model_state(server, checkpoint) == before
    assert set(server.loras.rglob("*")) == files
    assert painted(server, text_to_image(checkpoint, size=64, seed=77)).std() > 5


def test_upstream_lora_stays_in_force(server: ComfyServer, checkpoint: str, layers: list[Layer]) -> None:
    """A LoRA applied before the merge is part of the model while training and afterwards; other branches are not."""
    make_lora(server.loras / "upstream.safetensors", attention_linears(layers), seed=9)
    upstream = node(
        "LoraLoaderModelOnly", model=["checkpoint", 0], lora_name="upstream.safetensors", strength_model=1.0
    )
    graph = add_merge(models_only(checkpoint) | {"up": upstream}, CONTENT, STYLE, seed=41, model=["up", 0])
    on_top = painted(server, apply_and_paint(dict(graph), ["merge", 0], model=["up", 0]))
    without_merge = painted(server, apply_and_paint(dict(graph), ["merge", 0], content=0.0, style=0.0, model=["up", 0]))
    reference = text_to_image(checkpoint, positive="a sks dog in wtrclr style", size=64)
    reference["up"] = upstream
    reference["sampler"]["inputs"]["model"] = ["up", 0]
    assert np.array_equal(without_merge, painted(server, reference))
    assert np.abs(on_top - without_merge).mean() > 1
    losses = [
        loss_of(server, add_merge(models_only(checkpoint) | {"up": upstream}, CONTENT, STYLE, seed=42, model=model))
        for model in (["up", 0], ["checkpoint", 0])
    ]
    assert losses[0] != losses[1]


def loss_of(server: ComfyServer, graph: Graph) -> str:
    """The merge node's loss map as text."""
    graph["loss"] = node("PreviewAny", source=["merge", 2])
    return server.texts(server.run(graph, 300))["loss"][0]


def test_upstream_model_sampling_stays_in_force(server: ComfyServer, checkpoint: str) -> None:
    """A ModelSamplingDiscrete node before the merge decides what the losses are measured in."""
    sampling = node("ModelSamplingDiscrete", model=["checkpoint", 0], sampling="v_prediction", zsnr=True)
    graph = add_merge(models_only(checkpoint) | {"up": sampling}, CONTENT, STYLE, seed=43, model=["up", 0])
    server.run(add_save(graph, ["merge", 0], "sampling/merged"), 300)
    with safe_open(server.loras / saved_name(server, "sampling/merged"), framework="pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"


def test_equal_inputs_do_not_train_again(server: ComfyServer, checkpoint: str, layers: list[Layer]) -> None:
    """A graph queued again comes from the cache; the same file name with another content trains again."""
    make_lora(server.loras / "changing.safetensors", attention_linears(layers), rank=2, seed=1)
    graph = add_merge(models_only(checkpoint), "changing.safetensors", STYLE, seed=44)
    graph["loss"] = node("PreviewAny", source=["merge", 2])
    first = server.run(graph, 300)
    assert "merge" not in executed(server.run(graph, 300))
    make_lora(server.loras / "changing.safetensors", attention_linears(layers), rank=2, seed=2)
    second = server.run(graph, 300)
    assert "merge" in executed(second)
    assert server.texts(first)["loss"] != server.texts(second)["loss"]


@pytest.mark.parametrize(
    "prefix", ["../evil", "/evil", "C:/evil", "a/../../evil", "nul\0byte", "link/evil", "", "x" * 300]
)
def test_saving_never_leaves_the_loras_folder(
    server: ComfyServer, checkpoint: str, prefix: str, tmp_path: Path
) -> None:
    """A prefix that leads elsewhere is refused with a mend, and nothing is written anywhere."""
    link = server.loras / "link"
    if not link.is_symlink():
        link.symlink_to(tmp_path, target_is_directory=True)
    before = set(server.base.rglob("*")) | set(tmp_path.rglob("*"))
    graph = add_save(add_merge(models_only(checkpoint), CONTENT, STYLE, seed=71), ["merge", 0], prefix)
    with pytest.raises(GraphFailed, match="filename_prefix"):
        server.run(graph, 300)
    assert {p for p in (set(server.base.rglob("*")) | set(tmp_path.rglob("*"))) - before if "evil" in p.name} == set()
    link.unlink()
