"""The main job in real ComfyUI: two LoRAs in, a trained merge applied, saved, and loaded again by core's own loader."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from host import narrow
from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import node, text_to_image
from host.lora_samples import Layer, attention_linears, make_lora
from host.merge_graphs import (
    CONTENT,
    STYLE,
    STYLE_PROMPT,
    add_masks,
    add_merge,
    add_save,
    apply_and_paint,
    give_pictures,
    merged_picture_and_file,
    models_only,
    painted,
    saved_name,
    with_defaults,
)

pytestmark = pytest.mark.usefixtures("loras")
NARROW_LORAS = (narrow.CONTENT, narrow.STYLE)


@pytest.mark.parametrize(
    ("kind", "pair", "steps"), [("checkpoint", (CONTENT, STYLE), 10), ("narrow", NARROW_LORAS, 100)]
)
def test_hundred_steps_apply_save_and_reload(
    server: ComfyServer,
    kind: str,
    pair: tuple[str, str],
    steps: int,
    request: pytest.FixtureRequest,
) -> None:
    """The saved file in core's LoraLoader paints exactly what Apply Merged LoRA painted.

    No tolerance: Apply patches the model with the very fp16 tensors that the file holds.
    """
    checkpoint: str = request.getfixturevalue(kind)
    with server.log_of() as log:
        picture, name = merged_picture_and_file(server, checkpoint, f"full/{kind}", pair, steps=steps)
        again = text_to_image(checkpoint, [(name, 1.0)], positive="a sks dog in wtrclr style", size=64)
        reloaded = painted(server, again)
    plain = painted(server, text_to_image(checkpoint, positive="a sks dog in wtrclr style", size=64))
    assert np.array_equal(picture, reloaded)
    assert np.abs(picture - plain).mean() > 1
    assert picture.std() > 5
    assert "lora key not loaded" not in log.getvalue()


def test_saved_file_is_listed_and_tells_its_recipe(server: ComfyServer, checkpoint: str) -> None:
    """The new file shows up in the LoRA list of the running server, with kohya, model spec and recipe metadata."""
    _, name = merged_picture_and_file(server, checkpoint, "recipes/mine", seed=3)
    (listed, *_), *_ = server.object_info("LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"]
    options = server.object_info("LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"]
    assert name in json.dumps(options), listed
    with safe_open(server.loras / name, framework="pt") as file:
        metadata = file.metadata()
        keys = set(file.keys())
    recipe = json.loads(metadata["duolora_recipe"])
    assert recipe["inputs"]["content"]["name"] == CONTENT
    assert recipe["config"]["seed"] == 3
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert metadata["modelspec.trigger_phrase"] == "a sks dog in wtrclr style"
    assert any(key.startswith("lora_te1_") for key in keys)


def test_strengths_are_free_after_training(server: ComfyServer, checkpoint: str) -> None:
    """Both strengths 0 is the plain model; content 1, style 0 differs from style 1, content 0; nothing trains again."""
    base = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=11)
    pictures = {
        (content, style): painted(server, apply_and_paint(dict(base), ["merge", 0], content=content, style=style))
        for content, style in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-0.5, 1.0))
    }
    plain = painted(server, text_to_image(checkpoint, positive="a sks dog in wtrclr style", size=64))
    assert np.array_equal(pictures[0.0, 0.0], plain)
    for one, other in (((1.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (-0.5, 1.0)), ((1.0, 0.0), (0.0, 0.0))):
        assert np.abs(pictures[one] - pictures[other]).mean() > 1


def test_pictures_of_the_artist(server: ComfyServer, checkpoint: str) -> None:
    """Pictures of different sizes on the two sides train through the VAE; without a VAE the error says what to do."""
    graph = give_pictures(server, add_merge(models_only(checkpoint), CONTENT, STYLE))
    picture = painted(server, apply_and_paint(graph, ["merge", 0]))
    assert picture.std() > 5
    del graph["merge"]["inputs"]["vae"]
    with pytest.raises(GraphFailed, match="connect the checkpoint's"):
        server.run(graph)


@pytest.mark.parametrize("kind", ["checkpoint_v", "checkpoint_v_ztsnr"])
def test_v_prediction(server: ComfyServer, kind: str, request: pytest.FixtureRequest) -> None:
    """A v-prediction model, with and without zero terminal SNR, trains to finite losses, and the file says so."""
    checkpoint: str = request.getfixturevalue(kind)
    picture, name = merged_picture_and_file(server, checkpoint, f"{kind}/merged", steps=4)
    assert picture.std() > 5
    with safe_open(server.loras / name, framework="pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"
        assert all(bool(file.get_tensor(key).isfinite().all()) for key in file.keys())  # noqa: SIM118


def test_core_train_lora_feeds_the_merge_and_is_fed_by_it(server: ComfyServer, checkpoint: str) -> None:
    """Train LoRA → our loader → merge → Load LoRA Model paints the same as Apply without CLIP."""
    graph = models_only(checkpoint)
    graph["latent0"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph["prompt"] = node("CLIPTextEncode", clip=["clip", 0], text=STYLE_PROMPT)
    graph["train"] = with_defaults(
        server,
        "TrainLoraNode",
        model=["checkpoint", 0],
        latents=["latent0", 0],
        positive=["prompt", 0],
        steps=1,
        rank=2,
        training_dtype="fp32",
        lora_dtype="fp32",
        gradient_checkpointing=False,
    )
    add_merge(graph, CONTENT, "(connected LORA_MODEL)")
    lora_output = server.object_info("TrainLoraNode")["TrainLoraNode"]["output"].index("LORA_MODEL")
    graph["merge.style"]["inputs"]["lora"] = ["train", lora_output]
    graph["info"] = node("PreviewAny", source=["merge.style", 1])
    apply_and_paint(graph, ["merge", 0])
    del graph["apply"]["inputs"]["clip"]
    graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = ["clip", 0]
    history = server.run(graph, 600)
    assert "bias and norm changes" in server.texts(history)["info"][0]
    ours = server.images(history)["save"][0]
    graph["apply"] = with_defaults(server, "LoraModelLoader", model=["checkpoint", 0], lora=["merge", 1])
    core = server.images(server.run(graph, 600))["save"][0]
    assert np.array_equal(ours, core)
    assert ours.std() > 5


def test_report_and_combination(server: ComfyServer, checkpoint: str) -> None:
    """Two merges combine into one that applies and saves; the report is a picture with content."""
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, name="first", seed=51)
    graph = add_merge(graph, CONTENT, STYLE, name="second", seed=52)
    weights = {f"weight_{i}": 1.0 for i in range(1, 5)}
    graph["both"] = node("DuoLoRACombine", merged_1=["first", 0], merged_2=["second", 0], average=True, **weights)
    graph["report"] = node("DuoLoRAMergeReport", merged=["first", 0])
    graph = add_save(apply_and_paint(graph, ["both", 0]), ["both", 0], "combined/two", max_rank=4)
    history = server.run(graph, 300)
    report = server.images(history)["report"][0]
    assert report.shape[1] == 1400
    assert len(np.unique(report.reshape(-1, 3), axis=0)) > 50
    assert server.images(history)["save"][0].std() > 5
    with safe_open(server.loras / saved_name(server, "combined/two"), framework="pt") as file:
        ranks = {file.get_tensor(key).shape[0] for key in file.keys() if key.endswith("lora_down.weight")}  # noqa: SIM118
        recipe = json.loads(file.metadata()["duolora_recipe"])
    assert max(rank for rank in ranks) <= 24
    assert [entry["weight"] for entry in recipe["combined"]] == [0.5, 0.5]


def test_masks_make_the_merge_again(server: ComfyServer, checkpoint: str) -> None:
    """Saved masks, loaded beside the same two LoRAs, paint what the merge painted; other LoRAs are refused."""
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=61)
    add_save(apply_and_paint(graph, ["merge", 0]), ["merge", 0], "masks/m", what="masks only")
    picture = painted(server, graph)
    graph["saved"]["inputs"]["content_strength"] = 0.9  # so that the node runs again
    server.run(graph, 300)
    names = sorted(path.name for path in (server.loras / "masks").iterdir())
    assert names == ["m_00001.masks.safetensors", "m_00002.masks.safetensors"]
    assert all((server.loras / "masks" / name).stat().st_size < 100_000 for name in names)

    again = {name: graph[name] for name in ("checkpoint", "clip", "merge.content", "merge.style")}
    add_masks(again, "masks/m_00001.masks.safetensors", "merge")
    assert np.array_equal(picture, painted(server, apply_and_paint(again, ["masks", 0])))
    again["merge.content"]["inputs"]["strength"] = 0.5
    with pytest.raises(GraphFailed, match="Load that one, at that strength"):
        server.run(again)


def test_errors_are_for_artists(server: ComfyServer, checkpoint: str, layers: list[Layer]) -> None:
    """Swapped loaders, no prompt, another architecture and another model's shapes are each told plainly."""
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE)
    graph["merge"]["inputs"]["content"], graph["merge"]["inputs"]["style"] = ["merge.style", 0], ["merge.content", 0]
    add_save(graph, ["merge", 0], "errors/e")
    with pytest.raises(GraphFailed, match="Swap the two loaders"):
        server.run(graph)

    graph = add_save(add_merge(models_only(checkpoint), CONTENT, STYLE), ["merge", 0], "errors/e")
    graph["merge.style"]["inputs"]["prompt"] = " "
    with pytest.raises(GraphFailed, match="prompt cannot be left empty"):
        server.run(graph)

    of_sd15 = [
        Layer(
            layer.ldm,
            layer.diffusers,
            (layer.shape[0], 768 if layer.ldm.endswith(("attn2.to_k", "attn2.to_v")) else layer.shape[1]),
        )
        for layer in attention_linears(layers)
    ]
    make_lora(server.loras / "sd15.safetensors", of_sd15)
    graph["merge.style"]["inputs"] |= {"prompt": STYLE_PROMPT, "lora_name": "sd15.safetensors"}
    with pytest.raises(GraphFailed, match=r"Stable Diffusion 1\.5"):
        server.run(graph)

    wide = [
        Layer(layer.ldm, layer.diffusers, (layer.shape[0] * 2, layer.shape[1])) for layer in attention_linears(layers)
    ]
    make_lora(server.loras / "wide.safetensors", wide)
    graph["merge.style"]["inputs"]["lora_name"] = "wide.safetensors"
    with pytest.raises(GraphFailed, match=r"wide.safetensors: layer lora_unet_.* has shape \(320, 320\)"):
        server.run(graph)
